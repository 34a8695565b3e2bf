"""Where the time of a run goes."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

PAUSES = ("metrics",)  # kinds of work that may take minutes, while no image is shown


class Clock:
    """Seconds by kind of work since the last report, and the speed over the last seconds."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._marks: list[tuple[float, int]] = []

    def __call__(self, kind: str) -> AbstractContextManager[None]:
        """Add the time that the block takes to a kind."""
        return self._timed(kind)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        start_s = time.perf_counter()
        try:
            yield
        finally:
            elapsed_s = time.perf_counter() - start_s
            self._seconds[kind] = self._seconds.get(kind, 0.0) + elapsed_s
            if kind in PAUSES:  # else the time that is left would be told as hours
                self._marks = [(mark_s + elapsed_s, nimg) for mark_s, nimg in self._marks]

    def report(self) -> tuple[float, dict[str, float]]:
        """Return the seconds since the last report and each kind's share, and start anew."""
        now_s = time.perf_counter()
        total_s = max(now_s - self._started_s, 1e-9)
        shares = {kind: seconds / total_s for kind, seconds in sorted(self._seconds.items())}
        self._started_s, self._seconds = now_s, {}
        return total_s, shares

    def speed(self, nimg: int, *, window_s: float = 30.0) -> float:
        """Return images per second over the last `window_s` without pauses, given images shown."""
        now_s = time.perf_counter()
        self._marks.append((now_s, nimg))
        while len(self._marks) > 2 and self._marks[0][0] < now_s - window_s:
            self._marks.pop(0)
        (start_s, start_nimg), (end_s, end_nimg) = self._marks[0], self._marks[-1]
        return (end_nimg - start_nimg) / (end_s - start_s) if end_s > start_s else 0.0
