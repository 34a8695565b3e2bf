"""The training loop: start or resume, repeat the step, and on cadence log, save and evaluate."""

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

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.data.loader import Stream
from stylegan.data.shard_stream import ShardStream
from stylegan.data.shards import ShardSet
from stylegan.devices import device_name
from stylegan.errors import check_fraction, decided
from stylegan.models.base import Networks
from stylegan.ops.precision import float32_precision
from stylegan.training.checkpoint import (
    RunRecord,
    check_run_folder,
    load_newest_checkpoint,
    lock_run_folder,
    read_run_record,
    save_checkpoint,
    write_run_record,
)
from stylegan.training.clock import Clock
from stylegan.training.config import RunConfig, check_processes
from stylegan.training.evaluation import Evaluation, Evaluator, assist
from stylegan.training.health import HealthProbe
from stylegan.training.log import RunLog
from stylegan.training.memory import fit_to_memory, note_overflow
from stylegan.training.outputs import RunOutputs
from stylegan.training.path_features import NUM_IMAGES, load_path_features
from stylegan.training.reals import (
    check_dataset,
    first_images,
    hold_out,
    open_dataset,
    open_stream,
)
from stylegan.training.schedule import crossed
from stylegan.training.signals import SignalWatch
from stylegan.training.state import TrainState
from stylegan.training.step import train_step
from stylegan.training.threads import using_threads
from stylegan.training.transfer import Transfer, transfer_weights, write_transfer

logger = logging.getLogger(__name__)

TIME_IS_OVER = 1  # a reason to stop that ranks exchange; a signal is this plus its number


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The position of a run, given to `observe` after each iteration.

    Attributes:
        nimg: images shown.
        total_nimg: images at the end of the run.
        images_per_second: recent speed.
        seconds_left: to the end of the run, at this speed.
        record: the log record that this iteration wrote; None for most iterations.
    """

    nimg: int
    total_nimg: int
    images_per_second: float
    seconds_left: float
    record: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        nimg: images shown.
        is_complete: whether the run reached its length.
        signal: the signal that ended it; None if there was none.
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
    history: Sequence[Mapping[str, Any]] = (),
    observe: Callable[[Progress], None] | None = None,
    max_minutes: float | None = None,
    evaluate: Evaluator | None = None,
    evaluate_fraction: float = 0.05,
    metrics: Mapping[str, Any] | None = None,
    weights_dir: str | Path | None = None,
) -> Outcome:
    """Train to the end of the run, from its newest checkpoint if it has one.

    On SIGINT, SIGTERM or SIGHUP, and after `max_minutes`, a checkpoint and a snapshot are
    written and the function returns.

    With `evaluate`, snapshots are evaluated right after they are written: the first one of this
    call, each later one unless evaluation has taken more than its fraction of the time, and the
    last one of the run. The results are appended to `metrics.jsonl` and the log, and the best
    snapshot by each metric is kept under `best/`. Evaluation does not change what is trained.

    Args:
        config: the run's options.
        run_dir: folder of the run; everything is written there.
        dataset: the real images, if they are open already; None opens `config.data`.
        initial: weights for a new run, as of `transfer_weights`. What was copied is logged and
            written to `initial.json`.
        history: of the initial weights, as of `training.history`. It is written to `config.json`
            and to snapshots; a run that is resumed keeps that of its start.
        observe: called after each iteration.
        max_minutes: wall-clock limit; None for no limit.
        evaluate: computes metrics of a copy of the EMA generator, in eval mode and without
            gradients. A failed metric is logged and does not end the run; a signal interrupts
            it. None: no metrics.
        evaluate_fraction: fraction of the time of this call that evaluation may take, 0 to 1.
        metrics: the arguments that `evaluate` was made from, see `RunRecord`. They are written to
            `config.json`.
        weights_dir: folder with manually downloaded weights, for path lengths of features.

    Raises:
        StyleganError: if images, options or checkpoint do not fit, or training diverges.
    """
    check_fraction("evaluate_fraction", evaluate_fraction)
    started_s = time.monotonic()
    deadline_s = None if max_minutes is None else started_s + max_minutes * 60
    run_dir = Path(run_dir)
    with distributed.keep_others_waiting():
        dataset = open_dataset(config) if dataset is None else dataset
    check_dataset(dataset, config)
    check_processes(config, distributed.world_size())
    is_main = distributed.is_main_process()
    with ExitStack() as stack:
        if is_main:
            check_run_folder(run_dir, config, fingerprint=dataset.fingerprint)
            stack.enter_context(lock_run_folder(run_dir))
            if (started := read_run_record(run_dir)) is not None:
                history = started.history
        dataset, held_out = hold_out(dataset, config)
        options = json.dumps([config.to_json(), dataset.fingerprint])
        distributed.check_same_on_all_ranks(options, "options or images")
        stack.enter_context(float32_precision(tf32=config.precision == "tf32"))
        stack.enter_context(using_threads(config.runtime.threads))
        device = torch.device(decided(config.runtime.device, "runtime.device"))
        with distributed.keep_others_waiting():
            features = load_path_features(config.loss, weights_dir=weights_dir, device=device)
        state = TrainState(config, device, path_features=features)
        state.pixels = dataset.pixels
        transfer = start_or_resume(state, run_dir, initial)
        if config.data.labels:
            state.generator.class_names = dataset.class_names
            state.generator_ema.class_names = dataset.class_names
        with distributed.keep_others_waiting():
            dataset.preload(round(config.runtime.cache_gb * 1e9))
        log = evaluation = None
        if is_main:
            # From here on the folder holds a run; errors before this leave nothing behind.
            record = RunRecord(
                config=config,
                fingerprint=dataset.fingerprint,
                metrics=metrics or {},
                num_images=len(dataset) // (2 if config.data.mirror else 1),
                machine=_machine(device),
                history=history,
            )
            write_run_record(run_dir, record)
            if transfer is not None:  # resuming must not need the source of the weights
                write_transfer(run_dir, transfer)
                save_checkpoint(run_dir, state.state_dict(), nimg=0, keep=1)
            log = RunLog(run_dir, nimg=state.nimg)
            stack.callback(log.close)
            if evaluate is not None:
                evaluation = Evaluation(
                    evaluate,
                    fraction=evaluate_fraction,
                    run_dir=run_dir,
                    log=log,
                    deadline_s=deadline_s,
                )
        signals = stack.enter_context(SignalWatch())
        labels = dataset.label_table if config.data.labels else None
        trainer = Trainer(
            config, run_dir, state, log, labels, observe, evaluate, evaluation, held_out, history
        )
        return trainer.run(dataset, signals, deadline_s)


def start_or_resume(state: TrainState, run_dir: Path, initial: Networks | None) -> Transfer | None:
    """Load the newest checkpoint, or initial weights, on all ranks.

    Only rank 0 reads files; the others get the state from it.

    Returns:
        What was copied from the initial weights; None if nothing was, and on ranks above 0.
    """
    transfer = content = None
    if distributed.is_main_process():
        with distributed.keep_others_waiting():
            saved = load_newest_checkpoint(run_dir)
            if saved is not None:
                state.load_state_dict(saved)
                logger.info("resumed at %d images", state.nimg)
            elif initial is not None:
                transfer = transfer_weights(state, initial)
            if distributed.world_size() > 1:
                buffer = io.BytesIO()
                torch.save(state.state_dict(), buffer)
                content = buffer.getvalue()
    content = distributed.broadcast_bytes(content)
    if content is not None and not distributed.is_main_process():
        buffer = io.BytesIO(content)
        state.load_state_dict(torch.load(buffer, map_location="cpu", weights_only=True))
    return transfer


class Trainer:
    """One call of `train`: repeats the step, and logs, saves and evaluates on cadence.

    Args:
        config: the run's options.
        run_dir: the run's folder.
        state: what is trained.
        log: the run's log; None on all ranks but 0.
        labels: labels of the dataset, for networks with labels.
        observe: called after each iteration.
        evaluator: computes metrics; None for none.
        evaluation: decides which snapshots are evaluated; None on all ranks but 0.
        held_out: real images that are not trained on; None if there are none.
        history: the runs before this one.
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
        held_out: ImageDataset | None,
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.state = state
        self.draw_labels = None if labels is None else labels.draw
        self.observe = observe
        self.evaluator = evaluator
        self.evaluation = evaluation
        self.held_out = held_out
        self.clock = Clock()
        self.outputs = RunOutputs(config, run_dir, state, log, labels, self.clock, history)
        self.total_nimg = round(config.output.total_kimg * 1000)
        self.last_batch = config.batch
        self.fitted_stage: tuple[int, int] | None = None
        self.checkpoint_is_due = False

    @property
    def is_complete(self) -> bool:
        """Whether the run has reached its length."""
        return self.state.nimg >= self.total_nimg

    def run(
        self, dataset: ImageDataset | ShardSet, signals: SignalWatch, deadline_s: float | None
    ) -> Outcome:
        """Train until the run is complete, the time is over or a signal has arrived."""
        stop = 0  # the reason to stop of any rank, if not 0
        if self.state.nimg == 0:
            self.outputs.write_samples()
        with open_stream(dataset, self.config, self.state.device) as stream:
            self.outputs.write_reals(stream)
            if distributed.is_main_process():
                self.outputs.probe = HealthProbe(
                    self.state,
                    lambda num, size: first_images(stream, num=num, resolution=size).images,
                    training=dataset if isinstance(dataset, ImageDataset) else None,
                    held_out=self.held_out,
                    draw_labels=self.draw_labels,
                )
            if self.state.path_features is not None and self.state.nimg == 0:
                size = self.config.generator.size
                reals = first_images(stream, num=NUM_IMAGES, resolution=size).images
                self.state.path_features.calibrate(reals.to(self.state.device))
            distributed.barrier()
            while not self.is_complete and not stop:
                self.iterate(stream)
                self.act_on_cadence(signals)
                stop = distributed.all_reduce_max(self.reason_to_stop(signals, deadline_s))
        if stop and not self.is_complete:
            self.outputs.write_checkpoint()
        if not self.outputs.snapshot_path().exists():
            self.outputs.write_snapshot()
        if self.is_complete:
            self.evaluate(signals, is_last=True)
        if self.evaluation is not None:
            self.evaluation.finish()
        is_signal = stop > TIME_IS_OVER and not self.is_complete
        return Outcome(
            nimg=self.state.nimg,
            is_complete=self.is_complete,
            signal=Signals(stop - TIME_IS_OVER) if is_signal else None,
        )

    def iterate(self, stream: Stream | ShardStream) -> None:
        """Take one step on the next batch of real images."""
        state, stage = self.state, self.state.stage
        if state.device.type != "cpu" and self.fitted_stage != (stage.resolution, stage.batch):
            fit_to_memory(state, self.run_dir)  # on the CPU the system swaps instead
            self.fitted_stage = stage.resolution, stage.batch
        with self.clock("data"):
            real = stream.take(state.shard(stage.batch), start=state.nimg, resolution=stage.size)
        try:
            train_step(
                state,
                real.images,
                real_c=real.labels,
                draw_labels=self.draw_labels,
                timer=self.clock,
            )
        except torch.OutOfMemoryError:
            note_overflow(state, self.run_dir)
            raise
        self.last_batch = stage.batch

    def act_on_cadence(self, signals: SignalWatch) -> None:
        """Log, save and evaluate, as far as the last iteration reached a multiple of a cadence."""
        is_last, record = self.is_complete, None
        if is_last or self.has_crossed("tick_kimg"):
            record = self.outputs.write_record()
        is_snapshot = is_last or self.has_crossed("snapshot_kimg")
        if is_snapshot:
            self.outputs.write_snapshot()
        # A checkpoint waits for a step with finite gradients, so that a run that diverges keeps
        # the checkpoints from before.
        self.checkpoint_is_due |= self.has_crossed("checkpoint_kimg")
        if is_last or (self.checkpoint_is_due and self.state.num_skipped_in_row == 0):
            self.outputs.write_checkpoint()
            self.checkpoint_is_due = False
        if is_snapshot and not is_last:  # after the checkpoint, as it may take long
            self.evaluate(signals)
        self.report_progress(record)

    def has_crossed(self, cadence: str) -> bool:
        """Whether the last iteration reached a multiple of a cadence, an option of the output."""
        every_kimg = decided(getattr(self.config.output, cadence), f"output.{cadence}")
        return crossed(self.state.nimg, self.last_batch, every_kimg)

    def reason_to_stop(self, signals: SignalWatch, deadline_s: float | None) -> int:
        """Return 0 to continue, TIME_IS_OVER, or that plus the number of a signal."""
        if signals.received is not None:
            return TIME_IS_OVER + signals.received
        is_over = deadline_s is not None and time.monotonic() >= deadline_s
        return TIME_IS_OVER if is_over else 0

    def evaluate(self, signals: SignalWatch, *, is_last: bool = False) -> None:
        """Evaluate the snapshot that was just written on all ranks, if it is due."""
        if self.evaluator is None:
            return
        state = self.state
        due = self.due_metrics(is_last) if signals.received is None else []
        names_on_rank_0 = distributed.broadcast_bytes(",".join(due).encode()) or b""
        names = names_on_rank_0.decode().split(",") if names_on_rank_0 else []
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
                snapshot=self.outputs.snapshot_path(),
                interruptible=stopping,
            )

    def due_metrics(self, is_last: bool) -> Sequence[str]:
        """Return the metrics to compute now, on rank 0.

        The last snapshot of a run that was complete before may have been evaluated then.
        """
        evaluation, state = self.evaluation, self.state
        names = [] if evaluation is None else evaluation.missing(state.nimg)
        if evaluation is None or not names:
            return []
        is_due = evaluation.is_due(
            state.nimg,
            resolution=state.stage.resolution,
            img_resolution=state.generator_ema.img_resolution,
            is_last=is_last,
        )
        return names if is_due else []

    def report_progress(self, record: Mapping[str, Any] | None) -> None:
        """Call the observer."""
        if self.observe is None:
            return
        speed = self.clock.speed(self.state.nimg)
        num_left = max(self.total_nimg - self.state.nimg, 0)
        self.observe(
            Progress(
                nimg=self.state.nimg,
                total_nimg=self.total_nimg,
                images_per_second=speed,
                seconds_left=num_left / speed if speed > 0 else float("inf"),
                record=record,
            )
        )


def _machine(device: torch.device) -> str:
    num = distributed.world_size()
    return device_name(device) if num == 1 else f"{num} processes, each {device_name(device)}"
