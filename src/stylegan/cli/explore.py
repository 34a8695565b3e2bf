"""`stylegan explore`."""

from collections.abc import Sequence

from rich.console import Console

from stylegan.cli.command import Command, run
from stylegan.workflows.explore import Exploration, explore


def present(result: Exploration, out: Console) -> None:
    """Print where the favourites are."""
    out.print(f"favourites and latents are in {result.gallery}", markup=False)


def _present_link(result: Exploration, out: Console) -> None:
    out.print(f"the page is at {result.link} (Ctrl-C ends it)", markup=False)


COMMAND = Command(
    function=explore,
    present=present,
    on_result=_present_link,
    metavars={"network": "NET", "token": "TEXT", "gallery": "DIR"},
    example="stylegan explore --network runs/faces",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan explore`."""
    return run(COMMAND, arguments, prog="stylegan explore")
