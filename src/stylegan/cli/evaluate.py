"""`stylegan evaluate`, with `--compare` and `--watch`."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stylegan.cli.command import Command, run
from stylegan.metrics.suite import Result
from stylegan.workflows.evaluate import Evaluation, MetricComparison, compare, evaluate, watch


def present_result(result: Result, out: Console) -> None:
    """Print a result in one line."""
    out.print(Text(str(result)))


def present(evaluation: Evaluation, out: Console) -> None:
    """Print which files were written."""
    for path in evaluation.files:
        out.print(Text(f"  {path}"))
    if evaluation.results and evaluation.out is not None:
        out.print(Text(f"appended to {evaluation.out}"))


def present_comparison(comparison: MetricComparison, out: Console) -> None:
    """Print the values of two files side by side, and what may explain their differences."""
    table = Table(*comparison.header)
    for row in comparison.rows:
        table.add_row(*map(Text, row))
    out.print(table)
    for note in comparison.notes:
        out.print(Text(note))


COMMAND = Command(
    function=evaluate,
    present=present,
    on_result=present_result,
    metavars={"network": "NET", "data": "DATA", "metrics": "NAME,NAME", "features": "NAME"},
    example="stylegan evaluate --network runs/ffhq --data ffhq.zip --metrics fid50k_full,pr50k3\n"
    "  stylegan evaluate --fake samples/ --real photos/ --metrics fid5k:efficientnet-lite0\n"
    "  torchrun --nproc-per-node 8 -m stylegan evaluate --network runs/ffhq --data ffhq.zip"
    " --metrics fid50k_full\n"
    "\nTwo further uses, each with its own --help:\n"
    "  stylegan evaluate --watch runs/ffhq --metrics fid10k_full\n"
    "  stylegan evaluate --compare one.jsonl other.jsonl",
)
WATCH = Command(
    function=watch,
    present=lambda evaluation, out: None,
    on_result=present_result,
    aliases={"run": ("--watch",)},
    metavars={"run": "RUN", "data": "DATA", "metrics": "NAME,NAME", "features": "NAME"},
    example="stylegan evaluate --watch runs/ffhq --metrics fid10k_full",
)
COMPARE = Command(
    function=compare,
    present=present_comparison,
    positional=("first", "second"),
    metavars={"first": "FIRST", "second": "SECOND"},
    example="stylegan evaluate --compare one.jsonl other.jsonl",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan evaluate`, or what `--compare` or `--watch` selects."""
    command = COMMAND
    if "--compare" in arguments:
        command, arguments = COMPARE, [word for word in arguments if word != "--compare"]
    elif any(word.partition("=")[0] == "--watch" for word in arguments):
        command = WATCH
    return run(command, arguments, prog="stylegan evaluate")
