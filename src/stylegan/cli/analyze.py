"""`stylegan analyze droplets | phase | usage | spectra | noise | path-length`."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from stylegan.cli.command import Command, run_group
from stylegan.workflows import analyze
from stylegan.workflows.figures import Analysis


def present(analysis: Analysis, out: Console) -> None:
    """Print the summary and the names of the written files."""
    out.print(analysis.summary, markup=False)
    if analysis.folder is not None:
        out.print(f"in {analysis.folder}", markup=False)


def _command(function: Callable[..., Any], example: str) -> Command:
    name = function.__name__.replace("_", "-")
    metavars = {"network": "NET", "out": "DIR", "num": "N"}
    has_class = function is not analyze.path_length
    return Command(
        function=function,
        present=present,
        required=("out",),
        repeatable=("network",) if function in (analyze.droplets, analyze.phase) else (),
        aliases={"class_index": ("--class",)} if has_class else {},
        metavars=metavars | ({"class_index": "NAME"} if has_class else {}),
        example=f"stylegan analyze {name} {example} --out analysis",
    )


COMMANDS = {
    "droplets": _command(analyze.droplets, "--network runs/faces"),
    "phase": _command(analyze.phase, "--network runs/grown --network runs/flat"),
    "usage": _command(analyze.usage, "--network runs/faces"),
    "spectra": _command(analyze.spectra, "--network runs/faces --data faces.zip"),
    "noise": _command(analyze.noise, "--network runs/faces"),
    "path-length": _command(analyze.path_length, "--network runs/faces --num 1000"),
}


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan analyze`."""
    return run_group(COMMANDS, arguments, prog="stylegan analyze")
