"""How many images a device computes with at once: found by trying, and remembered."""

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
    """Set `state.batch_gpu` to what fits in memory at the state's stage, in all processes.

    An iteration with all of its phases is tried, and left out again; where memory runs out, half as
    many images at once. What is computed does not depend on it. `memory.json` of the run remembers
    the number for each device and stage.

    Raises:
        ConfigError: if not even the fewest images fit.
    """
    part = state.shard(state.stage.batch)
    most = len(part) if state.batch_gpu is None else min(state.batch_gpu, len(part))
    num = known = _smallest(_remembered(run_dir, state, most))
    while not _fits(state, num):
        if num <= part.group_size:
            raise ConfigError(
                f"a device without memory for {num} images of {state.stage.resolution}x"
                f"{state.stage.resolution} at once",
                expected="room for those that D compares with one another",
                fix="lower --batch, the widths or the resolution, or take --precision bf16",
            )
        num = _less(num, part)
    state.batch_gpu = num
    if num < most:
        logger.info("computing with %d images at once of %d: more do not fit", num, len(part))
    if num < known and distributed.is_main_process():
        _remember(run_dir, state, num)


def note_overflow(state: TrainState, run_dir: Path) -> None:
    """Write down that memory ran out in the midst of a run, so that its next start takes less."""
    part = state.shard(state.stage.batch)
    if run_dir.is_dir():  # on the leader's machine, and where that is shared
        with suppress(OSError):  # that memory ran out is what is to be told
            _remember(run_dir, state, _less(state.batch_gpu or len(part), part))


def _less(num: int, part: BatchSlice) -> int:
    """Return half as many images, of whole groups; a group at least."""
    return max(num // 2 // part.group_size, 1) * part.group_size


def _remember(run_dir: Path, state: TrainState, num: int) -> None:
    known = _read(run_dir) | {_key(state): num}
    write_atomic(run_dir / FILE, json.dumps(known, indent=2) + "\n")


def _fits(state: TrainState, num: int) -> bool:
    """Try an iteration with so many images at once, and tell whether all processes had room."""
    saved = _on_cpu(state.state_dict())  # a copy on the device would take room of its own
    before, state.batch_gpu = state.batch_gpu, num
    state.iteration = 0  # all regularizers are due
    rows, side = len(state.shard(state.stage.batch)), state.stage.resolution
    reals = torch.zeros([rows, state.generator.img_channels, side, side], device=state.device)
    c_dim = state.generator.c_dim

    def labels(count: int, stream: torch.Generator) -> Tensor:
        return torch.eye(c_dim)[:1].expand(count, -1)

    try:
        # a rank that runs out of memory would leave the others waiting in a collective
        with distributed.keep_others_waiting(), distributed.standalone():
            train_step(
                state,
                reals,
                real_c=labels(rows, torch.Generator()).to(state.device) if c_dim > 0 else None,
                draw_labels=labels if c_dim > 0 else None,
            )
        failed = False
    except torch.OutOfMemoryError:
        failed = True
    state.load_state_dict(saved)
    state.batch_gpu = before
    if failed and state.device.type == "cuda":
        torch.cuda.empty_cache()
    return distributed.all_reduce_max(int(failed)) == 0


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a state as a checkpoint does."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    copied: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
    return copied


def _remembered(run_dir: Path, state: TrainState, most: int) -> int:
    """Return how many fitted before, or `most`."""
    if not distributed.is_main_process():
        return most
    found = _read(run_dir).get(_key(state), most)
    return min(found, most)


def _read(run_dir: Path) -> dict[str, int]:
    try:
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing so far, or nothing that can be read: it is tried again
        return {}
    is_ours = isinstance(found, dict) and all(isinstance(num, int) for num in found.values())
    return found if is_ours else {}


def _key(state: TrainState) -> str:
    """Name device and stage."""
    device = state.device.type
    if device == "cuda":
        device = torch.cuda.get_device_name(state.device)
    stage = state.stage
    return (
        f"{device}, {distributed.world_size()} processes, {stage.resolution}, batch {stage.batch}"
    )


def _smallest(value: int) -> int:
    return -distributed.all_reduce_max(-value)
