"""Metrics while a run trains: which snapshots have their turn, and where the results go."""

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
"""A result: at least "metric", its name; "value"; "lower_is_better"; "seconds" that it took. Only
results with the same "comparable", or all without, compete for the best."""

Measure = Callable[[AbstractGenerator, int, Sequence[str]], Iterable[Record | None]]
"""Compute the metrics of these names, in their order, each when it is asked for the next record:
of a generator, in eval mode and without gradients, at so many images shown. Of several processes
that do so together, the leader gets the records, and the others None for each."""

Interruptible = Callable[[], AbstractContextManager[None]]
"""Make a context in which signals raise Stopped."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """The metrics of a run.

    Attributes:
        names: of the metrics, as records have them.
        measure: computes some of them.
    """

    names: Sequence[str]
    measure: Measure


class Evaluation:
    """The evaluations of one session of a run: their share of its time, and their results.

    Args:
        evaluator: computes the metrics.
        share: how much of the session's time they may take, from 0 to 1. A snapshot is passed over
            while more than that was spent; so the share is exceeded by one evaluation at most.
        run_dir: the run's folder.
        log: of the run.
        deadline_s: when the session ends, by `time.monotonic`; None if it does not.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        share: float,
        run_dir: Path,
        log: RunLog,
        deadline_s: float | None = None,
    ) -> None:
        self._evaluator = evaluator
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
            is_last: whether the snapshot is the run's last, which is evaluated whatever share of
                the time that takes. Past the deadline none is; one begins where the longest so far
                would end before it, so that the session's first may end after it.
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

    def missing(self, nimg: int) -> list[str]:
        """Return the metrics that a snapshot has no result of, from this session or before."""
        found = {each["metric"] for each in read_metrics(self._run_dir) if each["nimg"] == nimg}
        return [name for name in self._evaluator.names if name not in found]

    def run(
        self,
        generator: AbstractGenerator,
        nimg: int,
        names: Sequence[str],
        *,
        snapshot: Path,
        interruptible: Interruptible = nullcontext,
    ) -> None:
        """Compute metrics, and log each result and keep the best snapshot as it comes.

        A failure is told in one line, and changes nothing else: the other metrics have their turn.
        Torch's global random streams are left as they were.

        Args:
            generator: in eval mode. It may be left in the middle of something where a signal gives
                the evaluation up: hand over a copy.
            nimg: images shown.
            names: of the metrics: what is missing.
            snapshot: the folder with the generator's weights.
            interruptible: a context in which signals raise Stopped. Nothing is written
                within it.
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
            logger.warning("metrics at %d images: given up for the signal", nimg)
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
                    "time": {"metrics_seconds": seconds, "metrics_share": self.share},
                }
            )

    def _keep(self, result: Record, nimg: int, snapshot: Path) -> bool:
        """Write a result down, and keep its snapshot if it is the best; tell whether it is one."""
        metric, value = result["metric"], result["value"]
        if not _is_finite(result):
            logger.warning("metrics at %d images: %s is %s, and is left out", nimg, metric, value)
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
        """Warn if the evaluations took more of the session than they were to take."""
        share = self.share
        if share > self._share:
            logger.warning(
                "metrics took %.0f %% of the time, which is more than %.0f %%: for short runs "
                "choose cheaper ones by --metrics, or none",
                100 * share,
                100 * self._share,
            )


def assist(
    evaluator: Evaluator,
    generator: AbstractGenerator,
    nimg: int,
    names: Sequence[str],
    *,
    interruptible: Interruptible,
) -> None:
    """Do another process's share of what the leader does by `Evaluation.run`.

    Args:
        evaluator: the same as the leader's.
        generator: likewise.
        nimg: images shown.
        names: what the leader misses.
        interruptible: as of `Evaluation.run`.
    """
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
    """Yield what can be computed; after a metric that fails, begin again with the next.

    All processes of a group go through this in step, a metric at a time.
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
    """Tell whether all numbers of a record can be written as JSON."""
    try:
        json.dumps(dict(record), allow_nan=False)
    except ValueError:
        return False
    return math.isfinite(record["value"])


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
