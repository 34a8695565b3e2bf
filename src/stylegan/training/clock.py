"""Where the time of a run goes, and how fast it is."""

import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager

PAUSES = ("metrics",)  # may take minutes, during which no image is shown
TRAINING = ("G", "D", "regularizers", "data")
WINDOW_S = 30.0
MIN_ITERATIONS = 32  # two cycles of lazy R1, whose iterations take longer than others
SLOW_FRACTION = 0.5


class Clock:
    """Seconds by kind of work since the last report, and the recent speed."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._marks: deque[tuple[float, int]] = deque()

    def __call__(self, kind: str) -> AbstractContextManager[None]:
        """Count the time of the block as this kind of work."""
        return self._timed(kind)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        start_s = time.perf_counter()
        try:
            yield
        finally:
            elapsed_s = time.perf_counter() - start_s
            self._seconds[kind] = self._seconds.get(kind, 0.0) + elapsed_s
            if kind in PAUSES:  # otherwise the estimate of the time left would jump
                self._marks = deque((mark_s + elapsed_s, nimg) for mark_s, nimg in self._marks)

    @property
    def training_s(self) -> float:
        """Seconds of training since the last report, without writing files and metrics."""
        return sum(self._seconds.get(kind, 0.0) for kind in TRAINING)

    def report(self) -> tuple[float, dict[str, float]]:
        """Return the seconds since the last report and the fraction of each kind, and reset."""
        now_s = time.perf_counter()
        total_s = max(now_s - self._started_s, 1e-9)
        fractions = {kind: seconds / total_s for kind, seconds in sorted(self._seconds.items())}
        self._started_s, self._seconds = now_s, {}
        return total_s, fractions

    def speed(self, nimg: int) -> float:
        """Return the recent images per second without pauses; call it after each iteration.

        The window spans at least `WINDOW_S` and `MIN_ITERATIONS`, as far as there are that many.
        The first iteration, which may compile and allocate, is not part of it.

        Args:
            nimg: images shown so far.
        """
        now_s = time.perf_counter()
        self._marks.append((now_s, nimg))
        while len(self._marks) > MIN_ITERATIONS + 1 and self._marks[1][0] <= now_s - WINDOW_S:
            self._marks.popleft()
        (start_s, start_nimg), (end_s, end_nimg) = self._marks[0], self._marks[-1]
        return (end_nimg - start_nimg) / (end_s - start_s) if end_s > start_s else 0.0


class SlowdownMonitor:
    """Notices, once, that training runs at less than half of the speed that it has reached.

    Speeds are compared over periods of at least `WINDOW_S` and `MIN_ITERATIONS` within a stage of
    the run: a growing run is slower at each higher resolution.
    """

    def __init__(self) -> None:
        self._stage: Hashable = None
        self._best = 0.0
        self._has_reported = False
        self._reset()

    def _reset(self) -> None:
        self._seconds, self._images, self._iterations = 0.0, 0, 0

    def add(
        self, *, seconds: float, images: int, iterations: int, stage: Hashable
    ) -> tuple[float, float] | None:
        """Add some iterations; return the speed and the best one if it is time to warn.

        Args:
            seconds: that they took.
            images: that they showed.
            iterations: how many they were.
            stage: speeds of different stages are not compared.
        """
        if stage != self._stage:
            self._stage, self._best = stage, 0.0
            self._reset()
            return None  # these iterations may be of both stages, or the first of all
        self._seconds += seconds
        self._images += images
        self._iterations += iterations
        if self._seconds < WINDOW_S or self._iterations < MIN_ITERATIONS:
            return None
        speed = self._images / self._seconds
        self._reset()
        self._best = max(self._best, speed)
        if self._has_reported or speed >= SLOW_FRACTION * self._best:
            return None
        self._has_reported = True
        return speed, self._best
