"""Progress of long work: a callback, and a progress bar for terminals and notebooks."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

Item = TypeVar("Item")

Counter = Callable[[float, float | None], None]
"""Called with what is done and the total, of one kind of work; None where no total is known."""


class Progress(Protocol):
    """A callback for the progress of long work."""

    def __call__(self, description: str, completed: float, total: float | None) -> None:
        """Report progress.

        Args:
            description: the kind of work and its unit, such as "images". After " | " it may have a
                detail that changes, such as the present loss.
            completed: how much of it is done.
            total: how much there is; None if that is not known.
        """


def counter(progress: Progress | None, description: str, *, scale: float = 1.0) -> Counter | None:
    """Return a callback for one kind of work, or None without a progress callback.

    Args:
        progress: receives what the returned callback is called with.
        description: the kind of work.
        scale: factor on both numbers, such as 1e-6 from bytes to megabytes.
    """
    if progress is None:
        return None

    def count(completed: float, total: float | None) -> None:
        progress(description, completed * scale, None if total is None else total * scale)

    return count


def track(
    items: Iterable[Item], progress: Progress | None, description: str, total: int | None
) -> Iterator[Item]:
    """Yield items, and report progress after each."""
    for completed, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(description, completed, total)


class ProgressBar:
    """A progress callback that draws one bar for each description.

    It works in a terminal and in a notebook, while it is open, from the first report of progress:

        with stylegan.ProgressBar() as progress:
            stylegan.project("photos", network, out="projected", progress=progress)

    Args:
        console: where to draw; standard error by default.
        transient: remove the bars at the end, and draw none where there is no terminal. Otherwise
            the last state of each bar stays.
        disable: draw nothing.
    """

    def __init__(
        self, *, console: Console | None = None, transient: bool = False, disable: bool = False
    ) -> None:
        console = console or Console(stderr=True)
        is_shown = console.is_terminal or console.is_jupyter or not transient
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=transient,
            disable=disable or not is_shown,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks:
            self._bars.stop()

    def __call__(self, description: str, completed: float, total: float | None) -> None:
        """Move the bar of this kind of work; the first call adds it."""
        if not self._tasks:  # not earlier, so that nothing is drawn above an error
            self._bars.start()
        kind = description.partition(" | ")[0]
        if kind not in self._tasks:
            self._tasks[kind] = self._bars.add_task(description, total=total)
        self._bars.update(
            self._tasks[kind], description=description, completed=completed, total=total
        )
