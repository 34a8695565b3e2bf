"""`stylegan data prepare | check | info | augment | shard`."""

from collections.abc import Sequence

from rich.console import Console

from stylegan.cli.command import Command, present_text, run_group
from stylegan.data.describe import CheckReport
from stylegan.workflows.data import augment, check, info, prepare, shard


def _present_check(report: CheckReport, console: Console) -> int:
    present_text(report, console)
    return 0 if report.is_good else 1


COMMANDS = {
    "prepare": Command(
        function=prepare,
        present=present_text,
        positional=("source", "destination"),
        metavars={
            "source": "SRC",
            "destination": "DST.zip",
            "resolution": "R",
            "wide_height": "H",
            "labels_from": "json|folders|FILE.csv",
            "every": "N",
        },
        example="stylegan data prepare photos photos256.zip --resolution 256",
    ),
    "check": Command(
        function=check,
        present=_present_check,
        positional=("source",),
        metavars={"source": "SRC", "resolution": "R"},
        example="stylegan data check photos --resolution 256",
    ),
    "info": Command(
        function=info,
        present=present_text,
        positional=("source",),
        metavars={"source": "SRC", "out": "SHEET.png"},
        example="stylegan data info photos256.zip --out sheet.png",
    ),
    "augment": Command(
        function=augment,
        present=present_text,
        positional=("source",),
        metavars={"source": "SRC", "out": "FILE.png", "resolution": "R", "set": "NAME"},
        example="stylegan data augment photos256.zip --p 0.5 --out augmented.png",
    ),
    "shard": Command(
        function=shard,
        present=present_text,
        positional=("source", "destination"),
        metavars={"source": "SRC", "destination": "DST", "resolution": "R", "shard_mb": "MB"},
        example="stylegan data shard photos256.zip shards/ --shard-mb 128",
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan data`."""
    return run_group(COMMANDS, arguments, prog="stylegan data")
