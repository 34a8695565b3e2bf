"""How results of long work are shown in a notebook."""

import abc
import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from stylegan.images import png_bytes, write_grid


class TextResult(abc.ABC):
    """A result whose `str` is a short report, which a notebook shows as it is."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """Return the report."""

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()
) -> str:
    """Align rows of text in columns, two spaces apart.

    Args:
        header: titles of the columns.
        rows: cells, as many per row as there are titles.
        left: titles of the columns that are aligned to the left; the others, to the right.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if title in left else cell.rjust(width)
            for cell, width, title in zip(row, widths, header, strict=True)
        ).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)


def picture_html(image: Tensor) -> str:
    """Return an image, uint8 [C, H, W], as an HTML element that needs no file."""
    data = base64.b64encode(png_bytes(image)).decode()
    return f'<img src="data:image/png;base64,{data}">'


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A grid of images, which a notebook shows.

    Attributes:
        pixels: uint8 [C, H, W].
        path: of the PNG file; None if none was written.
    """

    pixels: Tensor = field(repr=False)
    path: Path | None = None

    def write(self, path: Path | str) -> None:
        """Write a PNG file."""
        write_grid(self.pixels, path)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.pixels)
