"""One self-contained HTML page of text, tables, pictures and charts.

The page has no script and loads nothing. It follows the light or dark mode of the browser.
"""

import base64
import io
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import jinja2
from PIL import Image
from torch import Tensor

from stylegan.files import write_atomic
from stylegan.images import png_bytes

ROW_WIDTH = 240
"""Width of a figure in a row, in pixels, below which the row is scrolled and not shrunk further."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs of plain text, separated by empty lines."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below column names. Columns of numbers are aligned to the right.

    Attributes:
        header: column names, with their units.
        rows: the text of the cells.
        caption: a line below the table; empty for none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def is_numeric(self) -> list[bool]:
        """Whether each column holds numbers only."""
        return [all(map(_is_number, column)) for column in zip(*self.rows, strict=True)] or [
            False
        ] * len(self.header)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with a caption, embedded in the page.

    Attributes:
        data: a PNG or GIF file.
        caption: what it shows, and how it was made; also the alternative text for screen readers.
        scale: screen pixels for each pixel of the picture.
    """

    data: bytes
    caption: str
    scale: int = 1

    @classmethod
    def of(cls, image: Tensor, *, caption: str, scale: int = 1) -> Self:
        """Return a figure of an image, uint8 [C, H, W]."""
        return cls(data=png_bytes(image), caption=caption, scale=scale)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page, in pixels."""
        with Image.open(io.BytesIO(self.data)) as picture:
            return self.scale * picture.width, self.scale * picture.height

    @property
    def source(self) -> str:
        """The file as a data URI.

        Raises:
            ValueError: if it is neither a PNG nor a GIF file.
        """
        with Image.open(io.BytesIO(self.data)) as picture:
            kind = picture.format
        if kind not in ("PNG", "GIF"):
            raise ValueError(f"a figure holds a PNG or GIF file, got {kind}")
        return f"data:image/{kind.lower()};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures side by side: shrunk to fit the page, then scrolled horizontally."""

    figures: Sequence[Figure]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Named curves over a common x axis.

    Attributes:
        title: the heading.
        series: from name to points (x, y). A point that is not finite interrupts its curve.
        x_label: the quantity on the x axis and its unit.
        y_label: the quantity on the y axis and its unit.
        caption: a line below the chart; empty for none.
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str
    y_label: str
    caption: str = ""

    @property
    def plot(self) -> "Plot":
        """The chart in pixels."""
        return Plot(self)


Block = Text | Table | Figure | Row | Chart


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and the blocks below it. Consecutive charts share a row."""

    title: str
    blocks: Sequence[Block]


class Plot:
    """Positions of a chart's ticks and curves, in pixels from the top left corner.

    Attributes:
        left: x of the y axis.
        right: x of the right border.
        bottom: y of the x axis.
        x_ticks: (x, label) of each tick.
        y_ticks: (y, label) of each tick.
        curves: name, and the points of each uninterrupted part as SVG writes them.
    """

    width, height = 360, 230

    def __init__(self, chart: Chart) -> None:
        points = [point for curve in chart.series.values() for point in curve if _is_finite(point)]
        x_ticks, y_ticks = _ticks([x for x, _ in points]), _ticks([y for _, y in points])
        # The x axis ends at the last point, the y axis at a tick.
        x_range, y_range = _extent([x for x, _ in points] or x_ticks), _extent(y_ticks)
        self.left = 12 + 8 * max(len(f"{y:g}") for y in y_ticks)
        self.right, self.bottom = self.width - 14, self.height - 42

        def place_x(x: float) -> float:
            return round(_rescale(x, x_range, (self.left, self.right)), 1)

        def place_y(y: float) -> float:
            return round(_rescale(y, y_range, (self.bottom, 28)), 1)

        self.x_ticks = [(place_x(x), f"{x:g}") for x in x_ticks if x_range[0] <= x <= x_range[1]]
        self.y_ticks = [(place_y(y), f"{y:g}") for y in y_ticks]
        self.curves: list[tuple[str, list[str]]] = []
        for name, curve in chart.series.items():
            parts = []
            for part in _finite_parts(curve):
                places = [f"{place_x(x)},{place_y(y)}" for x, y in part]
                # A line of length 0 with round ends is a dot.
                parts.append(" ".join(places * 2 if len(places) == 1 else places))
            self.curves.append((name, parts))


def write_page(path: str | os.PathLike[str], title: str, *, sections: Sequence[Section]) -> None:
    """Write a page as one HTML file, atomically."""
    write_atomic(path, page(title, sections=sections))


def page(title: str, *, sections: Sequence[Section]) -> str:
    """Return the HTML of a page. All text is escaped."""
    template = _environment().get_template("page.html")
    return template.render(title=title, sections=sections, row_width=ROW_WIDTH)


def frame(title: str, *, sections: Sequence[Section]) -> str:
    """Return a page as the HTML that a notebook shows below a cell, isolated from its styles."""
    source = _environment().from_string('<iframe srcdoc="{{ page }}" style="{{ style }}"></iframe>')
    style = "width: 100%; height: 36rem; border: 0"
    return source.render(page=page(title, sections=sections), style=style)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the HTML of a table for a notebook. All text is escaped."""
    template = _environment().from_string('{% from "blocks.html" import table %}{{ table(block) }}')
    return template.render(block=Table(header=header, rows=rows))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stylegan.workflows"),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["groups"] = _groups
    return environment


def _groups(blocks: Sequence[Block]) -> list[tuple[str, list[Block]]]:
    """Group consecutive blocks of one kind, with the name of the kind."""
    groups = itertools.groupby(blocks, key=lambda block: type(block).__name__)
    return [(kind, list(members)) for kind, members in groups]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True


def _is_finite(point: tuple[float, float]) -> bool:
    return all(map(math.isfinite, point))


def _finite_parts(curve: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Split a curve at the points that are not finite."""
    for is_finite, part in itertools.groupby(curve, key=_is_finite):
        if is_finite:
            yield list(part)


def _ticks(values: Sequence[float], *, num: int = 5) -> list[float]:
    """Return about `num` round numbers at equal steps that enclose the values."""
    low, high = _extent(values or [0.0])
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _extent(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest value; widened by 0.5 on both sides if they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _rescale(value: float, old: tuple[float, float], new: tuple[float, float]) -> float:
    return new[0] + (value - old[0]) / (old[1] - old[0]) * (new[1] - new[0])
