"""`stylegan pack`."""

from collections.abc import Sequence

from stylegan.cli.command import Command, present_text, run
from stylegan.workflows.pack import pack

COMMAND = Command(
    function=pack,
    present=present_text,
    positional=("run", "out"),
    metavars={
        "run": "RUN",
        "out": "OUT",
        "snapshot": "NAME",
        "metrics": "NAME,NAME",
        "calibrate": "N",
        "data": "DATA",
        "title": "TEXT",
        "about": "TEXT",
        "limits": "TEXT",
        "license": "NAME",
        "data_license": "NAME",
        "weights_dir": "DIR",
    },
    transient=False,
    example="stylegan pack runs/photos photos64 --license cc-by-4.0",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan pack`."""
    return run(COMMAND, arguments, prog="stylegan pack")
