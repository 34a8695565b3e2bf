"""`stylegan bench`."""

import json as json_module
from collections.abc import Sequence

from rich.console import Console

from stylegan.cli.command import Command, present_text, run
from stylegan.workflows.bench import BenchResult, bench


def present(result: BenchResult, console: Console, *, json: bool = False) -> None:
    """Print the result.

    Args:
        result: of `bench`.
        console: where to print.
        json: print one JSON object instead of tables.
    """
    if json:
        console.print(json_module.dumps(result.to_json(), indent=2), markup=False)
    else:
        present_text(result, console)


COMMAND = Command(
    function=bench,
    present=present,
    repeatable=("set",),
    metavars={"resolution": "R", "out": "FILE.json", "set": "FIELD=VALUE"},
    example="stylegan bench --preset stylegan2-e --resolution 64 --batch 16 --channel-base 8192",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan bench`."""
    return run(COMMAND, arguments, prog="stylegan bench")
