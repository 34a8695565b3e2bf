"""`stylegan attribute`."""

from collections.abc import Sequence

from rich.console import Console

from stylegan.cli.command import Command, run
from stylegan.workflows.attribute import Attribution, attribute


def present(attribution: Attribution, out: Console) -> None:
    """Print a table of the verdicts, or a line for each calibration."""
    out.print(str(attribution), markup=False)


COMMAND = Command(
    function=attribute,
    present=present,
    positional=("images",),
    required=("out",),
    repeatable=("networks", "calibrations"),
    aliases={
        "networks": ("--network",),
        "calibrations": ("--calibration",),
        "class_index": ("--class",),
    },
    metavars={
        "images": "IMAGE...",
        "networks": "NET",
        "out": "DIR",
        "data": "DATA",
        "calibrations": "FILE",
        "class_index": "NAME",
    },
    example="stylegan attribute image.png --network runs/faces --network runs/other --out verdict",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan attribute`."""
    return run(COMMAND, arguments, prog="stylegan attribute")
