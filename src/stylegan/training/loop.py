"""The training loop: build, resume, repeat the step, and on cadence report, save and evaluate."""

import copy
import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from stylegan import distributed, images
from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.data.shards import ShardSet
from stylegan.errors import ConfigError, check_fraction, decided
from stylegan.models import io as native
from stylegan.models.base import Networks
from stylegan.ops.box import upsample_nearest
from stylegan.ops.precision import float32_precision
from stylegan.rng import generator_for
from stylegan.training.checkpoint import (
    check_run_folder,
    load_newest_checkpoint,
    lock_run_folder,
    save_checkpoint,
    write_config,
)
from stylegan.training.clock import Clock
from stylegan.training.config import RunConfig, check_processes
from stylegan.training.evaluation import Evaluation, Evaluator, assist
from stylegan.training.log import RunLog
from stylegan.training.memory import fit_to_memory, note_overflow
from stylegan.training.reals import check_dataset, open_dataset, open_stream
from stylegan.training.schedule import crossed
from stylegan.training.signals import SignalWatch
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

logger = logging.getLogger(__name__)

SAMPLE_BATCH = 16
DATA_SHARE_WARNING = 0.2
LATE = 1  # what processes tell each other: this, or this plus the number of a signal


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, given to an observer after each iteration.

    Attributes:
        nimg: images shown.
        total_nimg: images at the end.
        images_per_second: over the last seconds.
        seconds_left: to the end, at this speed.
        record: the line of the log that this iteration wrote; None for most.
    """

    nimg: int
    total_nimg: int
    images_per_second: float
    seconds_left: float
    record: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        nimg: images shown.
        is_complete: whether the run reached its length.
        signal: SIGINT or SIGTERM if one of them ended it.
    """

    nimg: int
    is_complete: bool
    signal: Signals | None = None


def train(
    config: RunConfig,
    run_dir: str | Path,
    *,
    dataset: ImageDataset | ShardSet | None = None,
    initial: Networks | None = None,
    observe: Callable[[Progress], None] | None = None,
    max_minutes: float | None = None,
    evaluate: Evaluator | None = None,
    evaluate_share: float = 0.05,
) -> Outcome:
    """Train to the end of the run, from its newest checkpoint if it has one.

    On SIGINT, SIGTERM or SIGHUP a checkpoint and a snapshot are written, and the run returns; so it
    does after `max_minutes`.

    With `evaluate`, snapshots are evaluated as soon as they are written: the first of the session,
    each later one unless that has taken more than its share of the time, and the run's last. The
    results go into `metrics.jsonl` and the log, and the best snapshot by each metric is kept under
    `best/`. What is computed in training does not depend on it.

    Args:
        config: the run's options.
        run_dir: where everything is written.
        dataset: the real images, if the caller has them open; None opens `config.data`.
        initial: weights to start a new run from, as far as names and shapes agree.
        observe: called after each iteration.
        max_minutes: wall-clock limit; None for none.
        evaluate: called with a copy of the running average, in eval mode and without gradients,
            the images shown, and the names of the metrics. Each result is written as it comes. A
            signal ends it by an exception in its midst; its own failure is told in one line, and
            the run goes on. None for no metrics.
        evaluate_share: how much of the time of this call it may take, from 0 to 1.

    Raises:
        StyleganError: if images, options or checkpoint do not fit, or training diverges.
    """
    check_fraction("evaluate_share", evaluate_share)
    started_s = time.monotonic()
    run_dir = Path(run_dir)
    dataset = open_dataset(config) if dataset is None else dataset
    check_dataset(dataset, config)
    check_processes(config, distributed.world_size())
    with ExitStack() as stack:
        if distributed.is_main_process():
            check_run_folder(run_dir, config, fingerprint=dataset.fingerprint)
            stack.enter_context(lock_run_folder(run_dir))
        options = json.dumps([config.to_json(), dataset.fingerprint])
        distributed.check_same_on_all_ranks(options, "options or images")
        stack.enter_context(float32_precision(tf32=config.precision == "tf32"))
        return _train(
            config,
            run_dir,
            dataset,
            initial,
            observe,
            None if max_minutes is None else started_s + max_minutes * 60,
            evaluate,
            evaluate_share,
        )


def _train(
    config: RunConfig,
    run_dir: Path,
    dataset: ImageDataset | ShardSet,
    initial: Networks | None,
    observe: Callable[[Progress], None] | None,
    deadline_s: float | None,
    evaluate: Evaluator | None,
    evaluate_share: float,
) -> Outcome:
    state = TrainState(config, torch.device(decided(config.runtime.device, "runtime.device")))
    is_new = _start(state, run_dir, initial)
    with distributed.keep_others_waiting():
        dataset.preload(round(config.runtime.cache_gb * 1e9))
    log = evaluation = None
    if distributed.is_main_process():
        # nothing failed so far
        write_config(run_dir, config, fingerprint=dataset.fingerprint)
        if is_new and initial is not None:  # the run depends on its source no more
            save_checkpoint(run_dir, state.state_dict(), nimg=0, keep=1)
        log = RunLog(run_dir, nimg=state.nimg)
        if evaluate is not None:
            evaluation = Evaluation(
                evaluate, share=evaluate_share, run_dir=run_dir, log=log, deadline_s=deadline_s
            )
    try:
        with SignalWatch() as signals:
            labels = dataset.label_table if config.data.labels else None
            run = _Run(config, run_dir, state, log, labels, observe, evaluate, evaluation)
            return run.until_end(dataset, signals, deadline_s)
    finally:
        if log is not None:
            log.close()


def _start(state: TrainState, run_dir: Path, initial: Networks | None) -> bool:
    """Bring the state to where the run is, the same in all processes; tell whether it is new.

    The leader alone reads checkpoint and initial weights, so the others need not have them.
    """
    saved = None
    if distributed.is_main_process():
        with distributed.keep_others_waiting():
            saved = load_newest_checkpoint(run_dir)
            if saved is not None:
                state.load_state_dict(saved)
                logger.info("resumed at %d images", state.nimg)
            elif initial is not None:
                adopt(state, initial)
    if distributed.world_size() > 1:
        content = None
        if distributed.is_main_process():
            buffer = io.BytesIO()
            torch.save(state.state_dict(), buffer)
            content = buffer.getvalue()
        content = distributed.broadcast_bytes(content)
        if not distributed.is_main_process() and content is not None:
            state.load_state_dict(
                torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            )
    return saved is None


class _Run:
    """One stretch of a run: what it writes, and the clock of its current tick.

    Of several processes, the leader writes.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        state: TrainState,
        log: RunLog | None,
        labels: LabelTable | None,
        observe: Callable[[Progress], None] | None,
        evaluator: Evaluator | None,
        evaluation: Evaluation | None,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.state = state
        self.log = log
        self.labels = labels
        self.observe = observe
        self.evaluator = evaluator
        self.evaluation = evaluation  # the leader's
        self.total_nimg = round(config.output.total_kimg * 1000)
        self.clock = Clock()
        self.tick_nimg = state.nimg
        self.checkpoint_is_due = False

    def until_end(
        self, dataset: ImageDataset | ShardSet, signals: SignalWatch, deadline_s: float | None
    ) -> Outcome:
        """Iterate until the run is complete, the time is over or a signal has come."""
        state, output = self.state, self.config.output
        stop = 0  # why the run ends, in any process: LATE, or LATE plus the number of a signal
        if state.nimg == 0 and distributed.is_main_process():
            with distributed.keep_others_waiting():
                self.write_samples()
        distributed.barrier()
        draw_labels = None if self.labels is None else self.labels.draw
        with open_stream(dataset, self.config, state.device) as stream:
            fitted = None
            while state.nimg < self.total_nimg:
                batch = state.stage.batch
                stage = state.stage.resolution, batch
                if state.device.type != "cpu" and fitted != stage:  # the system swaps for a CPU
                    fit_to_memory(state, self.run_dir)
                    fitted = stage
                with self.clock("data"):
                    real = stream.take(
                        state.shard(batch), start=state.nimg, resolution=state.stage.resolution
                    )
                try:
                    train_step(
                        state,
                        real.images,
                        real_c=real.labels,
                        draw_labels=draw_labels,
                        timer=self.clock,
                    )
                except torch.OutOfMemoryError:
                    note_overflow(state, self.run_dir)
                    raise
                is_last = state.nimg >= self.total_nimg
                record = None
                if is_last or crossed(
                    state.nimg, batch, decided(output.tick_kimg, "output.tick_kimg")
                ):
                    record = self.write_record()
                is_snapshot = is_last or crossed(
                    state.nimg, batch, decided(output.snapshot_kimg, "output.snapshot_kimg")
                )
                if is_snapshot:
                    self.write_snapshot()
                self.checkpoint_is_due |= crossed(
                    state.nimg, batch, decided(output.checkpoint_kimg, "output.checkpoint_kimg")
                )
                if is_last or (self.checkpoint_is_due and self.num_bad_in_row == 0):
                    self.write_checkpoint()
                if is_snapshot and not is_last:  # after the checkpoint, as it may take long
                    self.evaluate(signals)
                self.report(record)
                is_late = deadline_s is not None and time.monotonic() >= deadline_s
                is_stopped = signals.received is not None
                stop = distributed.all_reduce_max(
                    LATE + (signals.received or 0) if is_late or is_stopped else 0
                )
                if not is_last and stop:
                    self.write_checkpoint()
                    self.write_snapshot()
                    break
        if not (self.run_dir / "snapshots" / f"{state.nimg:09d}").exists():
            self.write_snapshot()
        is_complete = state.nimg >= self.total_nimg
        if is_complete:
            self.evaluate(signals, is_last=True)
        if self.evaluation is not None:
            self.evaluation.finish()
        is_signal = stop > LATE and not is_complete
        signal = Signals(stop - LATE) if is_signal else None
        return Outcome(nimg=state.nimg, is_complete=is_complete, signal=signal)

    def write_record(self) -> dict[str, Any]:
        """Append the means since the last line to the log."""
        state = self.state
        seconds, shares = self.clock.report()
        record: dict[str, Any] = {
            "kind": "tick",
            "nimg": state.nimg,
            "iteration": state.iteration,
            "skipped": int(state.skipped),
            "terms": state.averages.report(),
            **self.growth(),
            "time": {
                "seconds": seconds,
                "images_per_second": (state.nimg - self.tick_nimg) / seconds,
                "share": shares,
            },
        }
        self.tick_nimg = state.nimg
        if self.log is not None:
            self.log.write(record)
        if self.num_bad_in_row > 0:
            logger.warning("%d steps in a row had bad gradients", self.num_bad_in_row)
        if shares.get("data", 0) > DATA_SHARE_WARNING:
            logger.warning(
                "%.0f %% of the time went into waiting for images: raise --workers, or the cache "
                "with --set runtime.cache_gb=...",
                100 * shares["data"],
            )
        return record

    def growth(self) -> dict[str, Any]:
        """Return where a growing run is, as a field of its log; nothing for others."""
        if self.config.growth is None:
            return {}
        stage = self.state.stage
        return {
            "growth": {
                "lod": stage.lod,
                "resolution": stage.resolution,
                "batch": stage.batch,
                "generator_lr": stage.generator_lr,
                "discriminator_lr": stage.discriminator_lr,
            }
        }

    @property
    def num_bad_in_row(self) -> int:
        """Steps of a phase that were left out for bad gradients, up to the last."""
        return max((int(num) for num in self.state.skipped_in_row.values()), default=0)

    def write_snapshot(self) -> None:
        """Write the networks in the native format, and a sheet of samples."""
        if not distributed.is_main_process():
            return
        with self.clock("snapshots"), distributed.keep_others_waiting():
            native.save(
                self.state.networks,
                self.run_dir / "snapshots" / f"{self.state.nimg:09d}",
                metadata={"nimg": self.state.nimg, "run": self.config.to_json()},
            )
            self.write_samples()

    @torch.no_grad()
    def write_samples(self) -> None:
        """Write a sheet of EMA samples with the run's fixed latents, noise, and labels of the set.

        While a run grows, the pixels are repeated to the full size, so that sheets compare.
        """
        generator, num = self.state.generator_ema, self.config.output.samples
        factor = generator.img_resolution // self.state.stage.resolution
        stream = generator_for("samples", seed=self.config.seed)
        z = torch.randn([num, generator.z_dim], generator=stream).to(self.state.device)
        c = None
        if self.labels is not None:
            stream = generator_for("sample_labels", seed=self.config.seed)
            c = self.labels.draw(num, stream).to(self.state.device)
        # in small parts: one pass over all would need more memory than training
        parts = [
            images.to_uint8(
                upsample_nearest(generator(z[part], c if c is None else c[part]), factor=factor)
            ).cpu()
            for part in (
                slice(first, first + SAMPLE_BATCH) for first in range(0, num, SAMPLE_BATCH)
            )
        ]
        sheet = images.grid(torch.cat(parts), columns=max(round(num**0.5), 1))
        images.write(sheet, self.run_dir / "samples" / f"{self.state.nimg:09d}.png")

    def write_checkpoint(self) -> None:
        """Write all of the state.

        On cadence this waits for a step with good gradients, so that a run that diverges keeps
        the checkpoints from before.
        """
        self.checkpoint_is_due = False
        if not distributed.is_main_process():
            return
        with self.clock("snapshots"), distributed.keep_others_waiting():
            save_checkpoint(
                self.run_dir,
                self.state.state_dict(),
                nimg=self.state.nimg,
                keep=self.config.output.keep_checkpoints,
            )

    def evaluate(self, signals: SignalWatch, *, is_last: bool = False) -> None:
        """Evaluate in all processes the snapshot that has just been written, if it has its turn."""
        if self.evaluator is None:
            return
        state = self.state
        names = self.names_due(is_last) if signals.received is None else []
        shared = distributed.broadcast_bytes(",".join(names).encode()) or b""
        names = shared.decode().split(",") if shared else []
        if not names:
            return
        generator, stopping = copy.deepcopy(state.generator_ema), signals.stopping_evaluations
        with self.clock("metrics"):
            if self.evaluation is None:
                assist(self.evaluator, generator, state.nimg, names, interruptible=stopping)
                return
            self.evaluation.run(
                generator,
                state.nimg,
                names,
                snapshot=self.run_dir / "snapshots" / f"{state.nimg:09d}",
                interruptible=stopping,
            )

    def names_due(self, is_last: bool) -> Sequence[str]:
        """Return at the leader the metrics that have their turn.

        The last snapshot of a run that was complete before may have been evaluated then.
        """
        evaluation, state = self.evaluation, self.state
        names = [] if evaluation is None else evaluation.missing(state.nimg)
        is_due = (
            evaluation is not None
            and bool(names)
            and evaluation.is_due(
                state.nimg,
                resolution=state.stage.resolution,
                img_resolution=state.generator_ema.img_resolution,
                is_last=is_last,
            )
        )
        return names if is_due else []

    def report(self, record: Mapping[str, Any] | None) -> None:
        """Tell the observer where the run is."""
        if self.observe is None:
            return
        speed = self.clock.speed(self.state.nimg)
        left = max(self.total_nimg - self.state.nimg, 0)
        self.observe(
            Progress(
                nimg=self.state.nimg,
                total_nimg=self.total_nimg,
                images_per_second=speed,
                seconds_left=left / speed if speed > 0 else float("inf"),
                record=record,
            )
        )


def adopt(state: TrainState, initial: Networks) -> None:
    """Copy weights into a new run, as far as names and shapes agree, and log how many did.

    Raises:
        ConfigError: if a network of the run finds nothing that fits.
    """
    sources = {name: dict(network.state_dict()) for name, network in initial.items()}
    average = sources.get("generator_ema") or sources.get("generator")
    found = {
        "generator": sources.get("generator") or average,
        "generator_ema": average,
        "discriminator": sources.get("discriminator"),
    }
    for name, network in state.networks.items():
        source = found[name]
        if source is None:
            logger.warning("%s: not in the source, starts fresh", name)
            continue
        own = network.state_dict()
        fitting = {
            key: value
            for key, value in source.items()
            if key in own and own[key].shape == value.shape
        }
        if not fitting:
            raise ConfigError(
                f"--init-from has no weight that fits the {name}",
                expected="networks of the same family",
                fix="leave out the options that change the architecture",
            )
        network.load_state_dict(own | fitting)
        new, dropped = len(own) - len(fitting), len(source) - len(fitting)
        logger.info("%s: %d tensors kept, %d new, %d dropped", name, len(fitting), new, dropped)
