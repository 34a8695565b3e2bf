"""Metrics of snapshots during training: when they are computed, and where the results go."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylegan import distributed
from stylegan.errors import PeerError, Stopped, StyleganError
from stylegan.models.base import AbstractGenerator
from stylegan.training.best import best_folder, keep_best
from stylegan.training.log import RunLog, read_metrics

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
"""A result, with at least "metric" (its name), "value", "lower_is_better" and "seconds". Only
results with an equal "comparable", or all without one, compete for the best snapshot."""

Measure = Callable[[AbstractGenerator, int, Sequence[str]], Iterable[Record | None]]
"""Computes the metrics of the given names in order, one per iteration, of a generator in eval mode
and without gradients, at a number of images shown. On several ranks that compute together, rank 0
yields the records and the others None."""

Interruptible = Callable[[], AbstractContextManager[None]]
"""Returns a context in which signals raise Stopped."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """The metrics of a run.

    Attributes:
        names: names of the metrics, as in the records.
        measure: computes some of the metrics.
    """

    names: Sequence[str]
    measure: Measure


class Evaluation:
    """The evaluations of one call of `train`: their time budget and their results.

    Args:
        evaluator: computes the metrics.
        fraction: maximum fraction of the call's time, 0 to 1. A snapshot is skipped while more than
            that was spent, so it is exceeded by one evaluation at most.
        run_dir: the run's folder.
        log: the run's log.
        deadline_s: end of the call on the clock of `time.monotonic`; None for no end.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        fraction: float,
        run_dir: Path,
        log: RunLog,
        deadline_s: float | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._max_fraction = fraction
        self._run_dir = run_dir
        self._log = log
        self._deadline_s = deadline_s
        self._started_s = time.monotonic()
        self._spent_s = 0.0
        self._longest_s = 0.0
        self._has_logged_growing = False

    @property
    def fraction(self) -> float:
        """Fraction of the call's time that evaluations have taken so far."""
        return self._spent_s / max(time.monotonic() - self._started_s, 1e-9)

    def is_due(self, nimg: int, *, resolution: int, img_resolution: int, is_last: bool) -> bool:
        """Whether a snapshot is to be evaluated; log the reason if it is not.

        Args:
            nimg: images shown at the snapshot.
            resolution: current nominal resolution of the training images.
            img_resolution: full nominal resolution. Metrics of smaller images are not comparable.
            is_last: whether the snapshot is the run's last one, for which the fraction does not
                count. Skip the evaluation if the longest one so far would exceed the deadline;
                so the first one of the call may end after it.
        """
        if resolution < img_resolution:
            if not self._has_logged_growing:
                logger.info(
                    "no metrics before images have their full resolution, %d", img_resolution
                )
            self._has_logged_growing = True
            return False
        if self._deadline_s is not None and time.monotonic() + self._longest_s > self._deadline_s:
            logger.info("no metrics at %d images: they would exceed the time limit", nimg)
            return False
        fraction = self.fraction
        if fraction > self._max_fraction and not is_last:
            logger.info(
                "no metrics at %d images: they have taken %.0f %% of the time, more than %.0f %%",
                nimg,
                100 * fraction,
                100 * self._max_fraction,
            )
            return False
        return True

    def missing(self, nimg: int) -> list[str]:
        """Return the metrics of which a snapshot has no result yet."""
        records = read_metrics(self._run_dir)
        known = {record["metric"] for record in records if record["nimg"] == nimg}
        return [name for name in self._evaluator.names if name not in known]

    def run(
        self,
        generator: AbstractGenerator,
        nimg: int,
        names: Sequence[str],
        *,
        snapshot: Path,
        interruptible: Interruptible = nullcontext,
    ) -> None:
        """Compute metrics on rank 0; log each result and keep the best snapshot as it comes.

        A failure is logged, and the other metrics are still computed. Torch's global random state
        is restored.

        Args:
            generator: in eval mode; a copy, as a signal may interrupt a metric at any point.
            nimg: images shown.
            names: names of the metrics to compute.
            snapshot: the folder with the generator's weights.
            interruptible: returns a context in which signals raise Stopped. Nothing is written in
                it.
        """
        logger.info("metrics at %d images ...", nimg)
        start_s = time.monotonic()
        values: dict[str, float] = {}
        try:
            for record in _results(self._evaluator, generator, nimg, names, interruptible):
                with distributed.keep_others_waiting():
                    is_kept = self._keep(record, nimg, snapshot)
                if is_kept:
                    values[record["metric"]] = record["value"]
        except Stopped:
            logger.warning("metrics at %d images: interrupted by the signal", nimg)
        finally:
            seconds = time.monotonic() - start_s
            self._spent_s += seconds
            self._longest_s = max(self._longest_s, seconds)
        if values:
            self._log.write(
                {
                    "kind": "metrics",
                    "nimg": nimg,
                    "metrics": values,
                    "time": {"metrics_seconds": seconds, "metrics_share": self.fraction},
                }
            )

    def _keep(self, result: Record, nimg: int, snapshot: Path) -> bool:
        """Log a result, and keep its snapshot if it is the best; return whether it is finite."""
        metric, value = result["metric"], result["value"]
        if not _is_finite(result):
            logger.warning("metrics at %d images: %s is %s, not recorded", nimg, metric, value)
            return False
        record = {**result, "nimg": nimg, "snapshot": f"snapshots/{snapshot.name}"}
        self._log.write_metrics([record])
        try:
            is_best = keep_best(self._run_dir, record, snapshot)
        except OSError as error:
            folder = best_folder(self._run_dir, metric)
            logger.warning("%s cannot be written (%s)", folder, _one_line(error))
            return True
        logger.info(
            "%s = %.5g at %d images, %s, in %.0f s",
            metric,
            value,
            nimg,
            "the best so far" if is_best else "not the best",
            record["seconds"],
        )
        return True

    def finish(self) -> None:
        """Warn if the evaluations took more than their fraction of the time."""
        fraction = self.fraction
        if fraction > self._max_fraction:
            logger.warning(
                "metrics took %.0f %% of the time, which is more than %.0f %%: for short runs "
                "choose cheaper ones by --metrics, or none",
                100 * fraction,
                100 * self._max_fraction,
            )


def assist(
    evaluator: Evaluator,
    generator: AbstractGenerator,
    nimg: int,
    names: Sequence[str],
    *,
    interruptible: Interruptible,
) -> None:
    """Take part in `Evaluation.run` on the other ranks; arguments as there."""
    with suppress(Stopped):
        for _ in _results(evaluator, generator, nimg, names, interruptible):
            pass


def _results(
    evaluator: Evaluator,
    generator: AbstractGenerator,
    nimg: int,
    names: Sequence[str],
    interruptible: Interruptible,
) -> Iterator[Record]:
    """Yield the results; after a metric that fails, continue with the next one.

    All ranks go through this together, one metric at a time.
    """
    device = next(generator.parameters()).device
    devices = [device] if device.type == "cuda" else []
    results: Iterator[Record | None] | None = None
    for index, name in enumerate(names):
        record = None
        try:
            with (
                distributed.failing_on_all_ranks(),
                interruptible(),
                torch.random.fork_rng(devices=devices),
                torch.no_grad(),
            ):
                if results is None:
                    results = iter(evaluator.measure(generator, nimg, names[index:]))
                record = next(results)
        except PeerError:  # no other metric can be computed with a rank that is gone
            raise
        except Exception as error:  # a failed metric must not abort training
            results = None
            _log_failure(error, name, nimg)
        if record is not None:
            yield record


def _log_failure(error: Exception, name: str, nimg: int) -> None:
    """Log an expected error in one line, and any other with its traceback.

    Ranks other than 0 show errors only, so they log their own failure as one.
    """
    is_from_other_rank = isinstance(error, distributed.RankFailedError)
    is_own = not is_from_other_rank and not distributed.is_main_process()
    is_expected = is_from_other_rank or isinstance(error, StyleganError | OSError)
    logger.log(
        logging.ERROR if is_own else logging.WARNING,
        "metrics at %d images: %s failed (%s)",
        nimg,
        name,
        _one_line(error),
        exc_info=None if is_expected else error,
    )


def _is_finite(record: Record) -> bool:
    """Whether all numbers of a record can be written as JSON."""
    try:
        json.dumps(dict(record), allow_nan=False)
    except ValueError:
        return False
    return math.isfinite(record["value"])


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
