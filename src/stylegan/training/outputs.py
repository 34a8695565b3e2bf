"""What a run writes: lines of the log, snapshots, sample grids, checkpoints. Rank 0 writes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan import distributed, images
from stylegan.captions import Captions, class_caption
from stylegan.data.labels import LabelTable
from stylegan.data.loader import Stream
from stylegan.data.shard_stream import ShardStream
from stylegan.models import io as native
from stylegan.ops.box import upsample_nearest
from stylegan.training import health
from stylegan.training.checkpoint import save_checkpoint
from stylegan.training.clock import Clock, SlowdownMonitor
from stylegan.training.config import RunConfig
from stylegan.training.health import HealthProbe
from stylegan.training.log import RunLog
from stylegan.training.reals import first_images
from stylegan.training.sampling import sample_grid_latents
from stylegan.training.state import TrainState

logger = logging.getLogger(__name__)

SAMPLE_BATCH = 16
REALS = "reals.png"
"""File in a run's folder with real images as the networks get them."""
DATA_FRACTION_WARNING = 0.2


class RunOutputs:
    """Writes the files of a run folder. All methods may be called on every rank.

    Args:
        config: the run's options.
        run_dir: the run's folder.
        state: what is written.
        log: the run's log; None on all ranks but 0.
        labels: labels of the dataset, for networks with labels.
        clock: measures the time; writing and measuring are counted as "snapshots".
        history: the runs before this one, for the metadata of snapshots.

    Attributes:
        probe: measures further terms of the log; None on all ranks but 0.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        state: TrainState,
        log: RunLog | None,
        labels: LabelTable | None,
        clock: Clock,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._state = state
        self._log = log
        self._labels = labels
        self._clock = clock
        self._history = [dict(stage) for stage in history]
        self._slowdown = SlowdownMonitor()
        self.probe: HealthProbe | None = None
        self._tick_nimg, self._tick_iteration = state.nimg, state.iteration

    def snapshot_path(self) -> Path:
        """Return the folder of the snapshot at the current position."""
        return self._run_dir / "snapshots" / f"{self._state.nimg:09d}"

    def write_record(self) -> dict[str, Any]:
        """Append the means since the last record to the log, and return the record."""
        state = self._state
        training_s = self._clock.training_s
        seconds, fractions = self._clock.report()
        num_images = state.nimg - self._tick_nimg
        record: dict[str, Any] = {
            "kind": "tick",
            "nimg": state.nimg,
            "iteration": state.iteration,
            "skipped": int(state.skipped),
            "terms": self._terms(),
            **self._growth(),
            "time": {
                "seconds": seconds,
                "images_per_second": num_images / seconds,
                "share": fractions,
            },
        }
        if self._log is not None:
            self._log.write(record)
            self._log.warn_once(
                health.signs(
                    self._log.ticks, has_logits=self._config.loss.adversarial == "logistic"
                ),
                nimg=state.nimg,
            )
        if state.num_skipped_in_row > 0:
            logger.warning("%d steps in a row had non-finite gradients", state.num_skipped_in_row)
        if fractions.get("data", 0) > DATA_FRACTION_WARNING:
            logger.warning(
                "%.0f %% of the time went into waiting for images: raise --workers, or the cache "
                "with --set runtime.cache_gb=...",
                100 * fractions["data"],
            )
        slow = self._slowdown.add(
            seconds=training_s,
            images=num_images,
            iterations=state.iteration - self._tick_iteration,
            stage=state.stage.key,
        )
        if slow is not None:
            logger.warning(
                "training runs at %.3g images per second, after %.3g before; %s", *slow, _remedy()
            )
        self._tick_nimg, self._tick_iteration = state.nimg, state.iteration
        return record

    def _terms(self) -> dict[str, float]:
        """Return the means since the last record, and what the probe measures."""
        terms = self._state.averages.report()
        if self.probe is None:
            return terms
        with self._clock("snapshots"), distributed.keep_others_waiting():
            return dict(sorted((terms | self.probe.measure()).items()))

    def _growth(self) -> dict[str, Any]:
        """Return the stage of a growing run as a field of its log; nothing for other runs."""
        if self._config.growth is None:
            return {}
        stage = self._state.stage
        return {
            "growth": {
                "lod": stage.lod,
                "resolution": stage.size.stored,
                "batch": stage.batch,
                "generator_lr": stage.generator_lr,
                "discriminator_lr": stage.discriminator_lr,
            }
        }

    def write_snapshot(self) -> None:
        """Write the networks in the native format, and a grid of samples."""
        if not distributed.is_main_process():
            return
        with self._clock("snapshots"), distributed.keep_others_waiting():
            native.save(
                self._state.networks,
                self.snapshot_path(),
                metadata={
                    "nimg": self._state.nimg,
                    "run": self._config.to_json(),
                    "history": self._history,
                },
            )
            self._write_samples()

    def write_samples(self) -> None:
        """Write a grid of samples alone, as at the start of a run."""
        if not distributed.is_main_process():
            return
        with distributed.keep_others_waiting():
            self._write_samples()

    @torch.no_grad()
    def _write_samples(self) -> None:
        """Write a grid of EMA samples with the run's fixed latents, noise and labels.

        While a run grows, pixels are repeated to the full resolution, so that grids compare.
        """
        state, num = self._state, self._config.output.samples
        generator = state.generator_ema
        factor = generator.img_size.height // state.stage.size.height
        draw_labels = None if self._labels is None else self._labels.draw
        z, c = sample_grid_latents(state, num, draw_labels)
        if c is not None and self._labels is not None and self._labels.has_classes:
            c = c[c.argmax(dim=1).argsort(stable=True)]  # images of a class side by side
        # In small batches: one pass over all samples would need more memory than training.
        batches = [
            state.pixels.shown(
                upsample_nearest(generator(z[rows], None if c is None else c[rows]), factor=factor)
            ).cpu()
            for rows in (
                slice(first, first + SAMPLE_BATCH) for first in range(0, num, SAMPLE_BATCH)
            )
        ]
        self._write_grid(torch.cat(batches), c, Path("samples", f"{state.nimg:09d}.png"))

    def write_reals(self, stream: Stream | ShardStream) -> None:
        """Write a grid of the first real images as the networks get them, if there is none.

        They are cropped, resized and mirrored, and have the full resolution of the run.
        """
        if not distributed.is_main_process() or (self._run_dir / REALS).exists():
            return
        with distributed.keep_others_waiting():
            reals = first_images(
                stream,
                num=self._config.output.samples,
                resolution=self._config.generator.resolution,
            )
            pictures = self._state.pixels.shown(reals.images)
            self._write_grid(pictures, reals.labels, Path(REALS))

    def _write_grid(self, pictures: Tensor, c: Tensor | None, path: Path) -> None:
        """Write a grid into the run's folder, with the class of each image as its caption."""
        names = [] if c is None else self._class_names(c)
        grid = images.grid(
            pictures,
            columns=max(round(len(pictures) ** 0.5), 1),
            padding=2 if names else 0,
            captions=Captions(tiles=names) if names else None,
        )
        images.write_grid(grid, self._run_dir / path)

    def _class_names(self, c: Tensor) -> list[str]:
        """Return the class of each label, [N, c_dim]; nothing if the labels are vectors."""
        if self._labels is None or not self._labels.has_classes:
            return []
        names = self._state.generator_ema.class_names
        return [class_caption(number, names) for number in c.argmax(dim=1).tolist()]

    def write_checkpoint(self) -> None:
        """Write the whole state."""
        if not distributed.is_main_process():
            return
        with self._clock("snapshots"), distributed.keep_others_waiting():
            save_checkpoint(
                self._run_dir,
                self._state.state_dict(),
                nimg=self._state.nimg,
                keep=self._config.output.keep_checkpoints,
            )


def _remedy() -> str:
    threads = torch.get_num_threads()
    text = "another process may be using the processor or the device: stop it"
    if threads > 1:
        text += f", or continue the run with fewer threads than {threads} by --threads"
    return text
