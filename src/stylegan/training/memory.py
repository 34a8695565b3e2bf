"""The largest micro-batch that fits into the memory of a device, found by trial."""

import io
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan import distributed
from stylegan.errors import ConfigError
from stylegan.files import write_atomic
from stylegan.microbatch import BatchSlice
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

logger = logging.getLogger(__name__)

FILE = "memory.json"


def fit_to_memory(state: TrainState, run_dir: Path) -> None:
    """Set `state.batch_gpu` to the largest micro-batch that fits on all ranks at this stage.

    Run one trial step with all phases, restore the state, and halve the size if out of memory.
    The result of training does not depend on the size. The run's `memory.json` records it for each
    device and stage.

    Raises:
        ConfigError: if not even a single group of minibatch std fits.
    """
    shard = state.shard(state.stage.batch)
    largest = len(shard) if state.batch_gpu is None else min(state.batch_gpu, len(shard))
    recorded = _recorded_size(run_dir, state, largest) if distributed.is_main_process() else largest
    size = recorded = -distributed.all_reduce_max(-recorded)  # the smallest of all ranks
    while not _fits(state, size):
        if size <= shard.group_size:
            raise ConfigError(
                f"the device has not enough memory for {size} images of {state.stage.size} at once",
                fix="lower --batch, the number of channels or the resolution, or choose "
                "--precision bf16",
            )
        size = _half(size, shard)
    state.batch_gpu = size
    if size < largest:
        logger.info("micro-batches of %d of %d images: larger ones do not fit", size, len(shard))
    if size < recorded and distributed.is_main_process():
        _record_size(run_dir, state, size)


def note_overflow(state: TrainState, run_dir: Path) -> None:
    """Record half of the size after running out of memory, for the next start of the run."""
    shard = state.shard(state.stage.batch)
    if run_dir.is_dir():  # on the machine of rank 0, and where its disk is shared
        with suppress(OSError):  # the error to report is that of the memory
            _record_size(run_dir, state, _half(state.batch_gpu or len(shard), shard))


def _half(size: int, shard: BatchSlice) -> int:
    """Return half of a size as a whole number of groups, at least one."""
    return max(size // 2 // shard.group_size, 1) * shard.group_size


def _fits(state: TrainState, size: int) -> bool:
    """Run one trial step with micro-batches of this size; return whether it fitted on all ranks."""
    saved = _copy_on_cpu(state.state_dict())  # a copy on the device would take memory itself
    before, state.batch_gpu = state.batch_gpu, size
    state.iteration = 0  # all regularizers are due
    rows, image = len(state.shard(state.stage.batch)), state.stage.size
    shape = [rows, state.generator.img_channels, image.height, image.width]
    reals = torch.zeros(shape, device=state.device)
    c_dim = state.generator.c_dim

    def labels(num: int, generator: torch.Generator) -> Tensor:
        return torch.eye(c_dim)[:1].expand(num, -1)

    try:
        # A rank that runs out of memory would leave the others waiting in a collective.
        with distributed.keep_others_waiting(), distributed.standalone():
            train_step(
                state,
                reals,
                real_c=labels(rows, torch.Generator()).to(state.device) if c_dim > 0 else None,
                draw_labels=labels if c_dim > 0 else None,
            )
        has_failed = False
    except torch.OutOfMemoryError:
        has_failed = True
    state.load_state_dict(saved)
    state.batch_gpu = before
    if has_failed and state.device.type == "cuda":
        torch.cuda.empty_cache()
    return distributed.all_reduce_max(int(has_failed)) == 0


def _copy_on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a state through memory, as a checkpoint does through a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    copy: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
    return copy


def _record_size(run_dir: Path, state: TrainState, size: int) -> None:
    sizes = _read(run_dir) | {_key(state): size}
    write_atomic(run_dir / FILE, json.dumps(sizes, indent=2) + "\n")


def _recorded_size(run_dir: Path, state: TrainState, largest: int) -> int:
    """Return the recorded size of the device and stage, at most `largest`."""
    return min(_read(run_dir).get(_key(state), largest), largest)


def _read(run_dir: Path) -> dict[str, int]:
    try:
        sizes = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or damaged: the sizes are found by trial again
        return {}
    is_valid = isinstance(sizes, dict) and all(isinstance(size, int) for size in sizes.values())
    return sizes if is_valid else {}


def _key(state: TrainState) -> str:
    """Return the key of the device and stage in the file."""
    device = state.device.type
    if device == "cuda":
        device = torch.cuda.get_device_name(state.device)
    stage, num_ranks = state.stage, distributed.world_size()
    return f"{device}, {num_ranks} processes, {stage.size.stored}, batch {stage.batch}"
