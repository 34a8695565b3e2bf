"""`stylegan convert IN OUT`: weights of any kind to ours, or to what other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table
from rich.text import Text

from stylegan.cli.options import console, progress
from stylegan.interop.convert import Conversion, Format, Summary, convert

_CONVERT = """Convert weights: official pickles of ProGAN, StyleGAN and StyleGAN2 (TensorFlow and
PyTorch), rosinality files, native folders. What IN is, its content says; nothing in it is run.

The architecture is read from the file. IN may be a URL, with #sha256=... if you know the
checksum, or the name of an official file such as stylegan2-ffhq-config-f. It ends with a table of
what was found.

Example: stylegan convert ffhq.pkl ffhq-converted"""

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


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Options of `stylegan convert`."""

    source: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="IN", help="A file, folder or URL.")
    ]
    out: Annotated[
        tyro.conf.Positional[Path],
        tyro.conf.arg(metavar="OUT", help="A folder for native, else a file."),
    ]
    to: Annotated[
        Format,
        tyro.conf.arg(
            help="native: safetensors and JSON. nvidia: state dicts for the official PyTorch "
            "classes. rosinality: g_ema, latent_avg, g, d. The two latter load with torch.load "
            "and weights_only=True."
        ),
    ] = "native"

    def run(self) -> int:
        """Convert, and print the table."""
        with progress(transient=True) as bar:
            task = bar.add_task("download, MB", total=None, visible=False)

            def observe(done: int, total: int | None) -> None:
                size = None if total is None else total / 1e6
                bar.update(task, completed=done / 1e6, total=size, visible=True)

            conversion = convert(self.source, self.out, to=self.to, progress=observe)
        _report(conversion, self.to)
        return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    return tyro.cli(Convert, prog="stylegan convert", description=_CONVERT, args=arguments).run()


def _report(conversion: Conversion, to: Format) -> None:
    """Say what was found, what it is, and what was written."""
    out = console()
    # Text: a path or a name from a file may look like markup
    out.print(Text(f"found    {conversion.kind}: {conversion.path}"))
    out.print(_table(conversion.networks))
    out.print(Text(f"written  {to}: {conversion.out}"))
    out.print(
        "The license of the weights goes with them: converting changes nothing about it, and "
        "NVIDIA's weights are for non-commercial use."
    )


def _table(networks: Sequence[Summary]) -> Table:
    """Set the networks beside each other; rows that say nothing are left out."""
    table = Table("", *(network.name for network in networks))
    for field, title in _ROWS.items():
        values = [getattr(network, field) for network in networks]
        if field == "labels":
            values = [value or "none" for value in values]
        cells = [f"{value:,}" if isinstance(value, int) else value for value in values]
        if any(cells):
            table.add_row(title, *map(Text, cells))
    return table
