"""What several commands share: the device, the console, the progress bar."""

from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stylegan.devices import DeviceName, resolve_device

__all__ = ["Device", "DeviceName", "Seed", "console", "progress", "resolve_device"]

Device = Annotated[
    DeviceName, tyro.conf.arg(help="auto takes a CUDA device, or Apple's, before the CPU.")
]
Seed = Annotated[int, tyro.conf.arg(help="Decides everything that is drawn at random.")]


def console() -> Console:
    """Return the console that commands print to: standard output as it is now.

    Of several processes one prints, and the others are quiet.
    """
    from stylegan import distributed

    return Console(highlight=False, soft_wrap=True, quiet=not distributed.reports_to_user())


def progress(*, transient: bool = False, silent: bool = False) -> Progress:
    """Return a progress bar with count and time left, on standard error.

    Where that is no terminal, it leaves one line when it ends. A transient one leaves nothing, and
    a silent one shows nothing at all.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=silent or (transient and not console.is_terminal),
    )
