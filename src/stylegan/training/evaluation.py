"""Metrics while a run trains: which snapshots have their turn, and where the results go."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from stylegan.errors import StyleganError
from stylegan.models.base import AbstractGenerator
from stylegan.training.best import best_folder, keep_best
from stylegan.training.log import RunLog, read_metrics

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
"""A result: at least "metric", its name; "value"; "lower_is_better"; "seconds" that it took."""

Evaluate = Callable[[AbstractGenerator, int], Sequence[Record]]
"""Compute metrics of a generator, in eval mode and without gradients, at so many images shown."""

# What may go wrong in a metric and leaves the training intact: our own errors, a full disk, and
# torch's, such as a device without memory for it or features that have no eigenvalues.
_FAILURES = (StyleganError, OSError, RuntimeError)


class EvaluationStopped(BaseException):
    """Raised by the handler of a signal within an evaluation, which is then given up.

    No Exception, as KeyboardInterrupt is none: what handles errors is not to take it for one.
    """


class Evaluation:
    """The evaluations of one session of a run: their share of its time, and their results.

    Args:
        evaluate: computes the metrics.
        share: how much of the session's time they may take, from 0 to 1. A snapshot is passed over
            while more than that was spent; so the share is exceeded by one evaluation at most.
        run_dir: the run's folder.
        log: of the run.
        deadline_s: when the session ends, by `time.monotonic`; None if it does not.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        share: float,
        run_dir: Path,
        log: RunLog,
        deadline_s: float | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._share = share
        self._run_dir = run_dir
        self._log = log
        self._deadline_s = deadline_s
        self._started_s = time.monotonic()
        self._spent_s = 0.0
        self._longest_s = 0.0
        self._has_told_of_growing = False

    @property
    def share(self) -> float:
        """Share of the session's time that evaluations have taken so far."""
        return self._spent_s / max(time.monotonic() - self._started_s, 1e-9)

    def is_due(self, nimg: int, *, resolution: int, img_resolution: int, is_last: bool) -> bool:
        """Tell whether a snapshot has its turn, and log why if it has not.

        Args:
            nimg: images shown at the snapshot.
            resolution: of the images that the run trains on now.
            img_resolution: the full one. Metrics of smaller images are other metrics.
            is_last: whether the snapshot is the run's last, which is evaluated whatever it takes.
        """
        if resolution < img_resolution:
            if not self._has_told_of_growing:
                logger.info("no metrics before images are %d pixels wide", img_resolution)
            self._has_told_of_growing = True
            return False
        if self._deadline_s is not None and time.monotonic() + self._longest_s > self._deadline_s:
            logger.info("no metrics at %d images: the time of the run is over before", nimg)
            return False
        share = self.share
        if share > self._share and not is_last:
            logger.info(
                "no metrics at %d images: they have taken %.0f %% of the time, of %.0f %%",
                nimg,
                100 * share,
                100 * self._share,
            )
            return False
        return True

    def has_results(self, nimg: int) -> bool:
        """Tell whether a snapshot has been evaluated, in this session or before."""
        return any(record["nimg"] == nimg for record in read_metrics(self._run_dir))

    def run(
        self,
        generator: AbstractGenerator,
        nimg: int,
        *,
        snapshot: Path,
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Evaluate, log the results, and keep the snapshot where it is the best so far.

        A failure is told in one line, and changes nothing else. Torch's global random streams are
        left as they were.

        Args:
            generator: in eval mode. It may be left in the middle of something where a signal gives
                the evaluation up: hand over a copy.
            nimg: images shown.
            snapshot: the folder with the generator's weights.
            interruptible: a context in which signals raise EvaluationStopped.
        """
        logger.info("metrics at %d images ...", nimg)
        start_s = time.monotonic()
        device = next(generator.parameters()).device
        devices = [device] if device.type == "cuda" else []
        try:
            with interruptible(), torch.random.fork_rng(devices=devices), torch.no_grad():
                results = self._evaluate(generator, nimg)
        except EvaluationStopped:
            logger.warning("metrics at %d images: given up for the signal", nimg)
            return
        except _FAILURES as error:
            logger.warning("metrics at %d images: failed (%s)", nimg, _one_line(error))
            return
        finally:
            seconds = time.monotonic() - start_s
            self._spent_s += seconds
            self._longest_s = max(self._longest_s, seconds)
        finite = [result for result in results if _is_finite(result)]
        for result in results:
            if not _is_finite(result):
                logger.warning(
                    "metrics at %d images: %s is %s, and is left out",
                    nimg,
                    result["metric"],
                    result["value"],
                )
        if finite:
            self._write(finite, nimg, seconds, snapshot)

    def _write(self, results: Sequence[Record], nimg: int, seconds: float, snapshot: Path) -> None:
        records = [
            {**result, "nimg": nimg, "snapshot": f"snapshots/{snapshot.name}"} for result in results
        ]
        self._log.write_metrics(records)
        self._log.write(
            {
                "kind": "metrics",
                "nimg": nimg,
                "metrics": {record["metric"]: record["value"] for record in records},
                "time": {"metrics_seconds": seconds, "metrics_share": self.share},
            }
        )
        for record in records:
            metric = record["metric"]
            try:
                is_best = keep_best(self._run_dir, record, snapshot)
            except OSError as error:
                logger.warning(
                    "%s cannot be written (%s)",
                    best_folder(self._run_dir, metric),
                    _one_line(error),
                )
                continue
            logger.info(
                "%s = %.5g at %d images, %s, in %.0f s",
                metric,
                record["value"],
                nimg,
                "the best so far" if is_best else "not the best",
                record["seconds"],
            )

    def finish(self) -> None:
        """Warn if the evaluations took more of the session than they were to take."""
        share = self.share
        if share > self._share:
            logger.warning(
                "metrics took %.0f %% of the time, which is more than %.0f %%: for short runs "
                "choose cheaper ones by --metrics, or none",
                100 * share,
                100 * self._share,
            )


def _is_finite(record: Record) -> bool:
    """Tell whether all numbers of a record can be written as JSON."""
    try:
        json.dumps(dict(record), allow_nan=False)
    except ValueError:
        return False
    return math.isfinite(record["value"])


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
