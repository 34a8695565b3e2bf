"""`stylegan demo`."""

import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console

from stylegan.cli.command import Command, console, parser_of
from stylegan.cli.live import LiveLine
from stylegan.progress import ProgressBar
from stylegan.workflows.demo import DemoResult, demo


def present(result: DemoResult, out: Console, *, open: bool = False) -> int:
    """Print the distances and where the report is, and return the exit status.

    Args:
        result: of the demo.
        out: the console.
        open: open the report in the browser at the end.
    """
    out.print(str(result), markup=False)
    if open and result.report is not None:
        webbrowser.open(result.report.resolve().as_uri())
    signal = None if result.outcome is None else result.outcome.signal
    return 0 if signal is None else 128 + signal


COMMAND = Command(
    function=demo,
    present=present,
    metavars={"data": "DATA", "out": "RUN"},
    example="stylegan demo --minutes 5 --out runs/demo",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan demo`."""
    options = parser_of(COMMAND, prog="stylegan demo").values(arguments)
    display = {name: options.pop(name) for name in COMMAND.display_options()}
    out = console()
    with LiveLine(out) as line, ExitStack() as stack:
        bars: list[ProgressBar] = []

        def on_start(text: str) -> None:
            bars.clear()
            stack.close()  # the bar of reading images: a terminal has one live display at a time
            out.print(text, markup=False)

        def progress(description: str, completed: float, total: float | None) -> None:
            if not bars:
                line.stop()
                bars.append(stack.enter_context(ProgressBar()))
            bars[0](description, completed, total)

        result = demo(**options, on_start=on_start, observe=line.update, progress=progress)
    return present(result, out, **display)
