"""`stylegan report`."""

from collections.abc import Sequence

from stylegan.cli.command import Command, present_text, run
from stylegan.workflows.report import report

COMMAND = Command(
    function=report,
    present=present_text,
    aliases={"class_index": ("--class",)},
    metavars={
        "network": "NET",
        "data": "DATA",
        "out": "PAGE.html",
        "num": "N",
        "class_index": "NAME",
        "steps": "N",
    },
    transient=False,
    example="stylegan report --network runs/faces --data faces.zip --out report.html",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan report`."""
    return run(COMMAND, arguments, prog="stylegan report")
