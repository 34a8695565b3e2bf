"""`stylegan convert`."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stylegan.cli.command import Command, run
from stylegan.interop.convert import Conversion, Summary
from stylegan.workflows.convert import convert

_ROWS = {
    "becomes": "becomes",
    "family": "family",
    "architecture": "architecture",
    "images": "images",
    "widths": "channels",
    "latents": "latents",
    "labels": "labels",
    "others": "other options",
    "parameters": "parameters",
}


def present(conversion: Conversion, out: Console) -> None:
    """Print what was read, a table of the networks, and what was written."""
    # Text: a path or a name from a file may look like markup
    out.print(Text(f"found    {conversion.kind}: {conversion.path}"))
    out.print(_table(conversion.networks))
    out.print(Text(f"written  {conversion.to}: {conversion.out}"))
    out.print(
        "The license of the weights goes with them: converting changes nothing about it, and "
        "NVIDIA's weights are for non-commercial use."
    )


def _table(networks: Sequence[Summary]) -> Table:
    table = Table("", *(network.name for network in networks))
    for field, title in _ROWS.items():
        values = [getattr(network, field) for network in networks]
        if field == "labels":
            values = [value or "none" for value in values]
        cells = [f"{value:,}" if isinstance(value, int) else value for value in values]
        if any(cells):
            table.add_row(title, *map(Text, cells))
    return table


COMMAND = Command(
    function=convert,
    present=present,
    positional=("source", "out"),
    metavars={"source": "IN", "out": "OUT"},
    example="stylegan convert ffhq.pkl ffhq-converted",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan convert`."""
    return run(COMMAND, arguments, prog="stylegan convert")
