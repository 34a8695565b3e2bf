"""One HTML page that holds everything it shows: no script, no request, light and dark."""

import base64
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from stylegan.files import write_atomic

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #1c1d1f; --soft: #5d6168;
  --rule: #dedfe2; --box: #ffffff;
  --s0: #1f6fd0; --s1: #c8385a; --s2: #2c8a3e; --s3: #8550c4; --s4: #b26a00; --s5: #00808c; }
@media (prefers-color-scheme: dark) { :root { --page: #17181a; --ink: #e9eaec; --soft: #a3a8b0;
  --rule: #383b40; --box: #1f2124;
  --s0: #6fb0ff; --s1: #ff8aa0; --s2: #74d085; --s3: #c4a1f5; --s4: #f0b04c; --s5: #55d0da; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 58rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.4rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--rule); }
p { margin: .6rem 0; max-width: 44rem; }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem; max-width: 44rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
img.enlarged { image-rendering: pixelated; }
.scroll { overflow-x: auto; max-width: 100%; }
.strip { display: flex; gap: .8rem; overflow-x: auto; padding-bottom: .4rem; }
.strip figure { flex: 0 1 auto; margin: .4rem 0; }
.charts { display: grid; gap: 1rem; grid-template-columns:
  repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.charts figure { background: var(--box); border: 1px solid var(--rule); border-radius: 6px;
  padding: .7rem .8rem; margin: 0; max-width: 34rem; }
.charts h3 { font-size: .98rem; margin: 0 0 .2rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .1rem 0 .3rem;
  padding: 0; font-size: .85rem; color: var(--soft); }
.legend svg { display: inline-block; width: 26px; height: 10px; margin-right: .35rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.number { white-space: nowrap; }
td.number, th.number { text-align: right; }
"""
NUM_COLORS = 6
# Told apart by dashes too, for those who cannot by color.
DASHES = ("", "7 4", "2 4", "10 3 2 3")
STRIP_WIDTH = 240  # of a figure, in pixels, before the strip is scrolled
CHART_WIDTH = 360.0
CHART_HEIGHT = 230.0


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs of plain text, kept apart by empty lines."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below column names. A column that holds only numbers is set flush right.

    Args:
        header: column names, with their units.
        rows: cells as they are to be shown.
        caption: a line below, or nothing.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with a caption, embedded in the page.

    Args:
        data: a PNG or GIF file.
        caption: what it shows, and how it was made; read to those who do not see it, too.
        scale: screen pixels for each of the picture's.
    """

    data: bytes
    caption: str
    scale: int = 1


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Figures side by side, from left to right: first shrunk to fit the page, then scrolled."""

    figures: Sequence[Figure]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Named curves over one axis.

    Args:
        title: what is drawn.
        series: from name to points (x, y). A point that is not finite interrupts its curve.
        x_label: the quantity and its unit.
        y_label: likewise.
        caption: a line below, or nothing.
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str
    y_label: str
    caption: str = ""


Block = Text | Table | Figure | Strip | Chart


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands below it. Charts that follow one another share a row."""

    title: str
    blocks: Sequence[Block]


def write_page(path: str | os.PathLike[str], title: str, *, sections: Sequence[Section]) -> None:
    """Write one self-contained HTML file, whole or not at all."""
    write_atomic(path, page(title, sections=sections))


def page(title: str, *, sections: Sequence[Section]) -> str:
    """Make the HTML of a page. All text is escaped."""
    body = "\n".join(
        f"<section>\n<h2>{escape(section.title)}</h2>\n{_blocks(section.blocks)}\n</section>"
        for section in sections
    )
    # The policy lets the browser load nothing but what stands in the page.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def line_chart(chart: Chart) -> str:
    """Draw a chart as SVG with its legend: axes, ticks, labels; colors follow the page."""
    points = [(x, y) for curve in chart.series.values() for x, y in curve if _is_finite(x, y)]
    x_ticks = _ticks([x for x, _ in points], num=5)
    y_ticks = _ticks([y for _, y in points], num=5)
    # The curves end at their last point, while the y axis ends at a tick above the highest.
    x_low, x_high = _span([x for x, _ in points] or x_ticks)
    y_low, y_high = _span(y_ticks)
    left = 12 + 8 * max(len(_number(y)) for y in y_ticks)
    right, top, bottom = CHART_WIDTH - 14, 28, CHART_HEIGHT - 42

    def place_x(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (right - left)

    def place_y(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - top)

    parts = [f'<text x="0" y="13">{escape(chart.y_label)}</text>']
    for y in y_ticks:
        parts.append(
            f'<line class="grid" x1="{left}" x2="{right:g}" '
            f'y1="{place_y(y):.1f}" y2="{place_y(y):.1f}"/>'
            f'<text x="{left - 6}" y="{place_y(y) + 4:.1f}" text-anchor="end">{_number(y)}</text>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            at = place_x(x)
            parts.append(
                f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" '
                f'y1="{bottom:g}" y2="{bottom + 4:g}"/>'
                f'<text x="{at:.1f}" y="{bottom + 18:g}" text-anchor="middle">{_number(x)}</text>'
            )
    parts.append(
        f'<text x="{right:g}" y="{CHART_HEIGHT - 5:g}" text-anchor="end">'
        f"{escape(chart.x_label)}</text>"
    )
    for index, (name, curve) in enumerate(chart.series.items()):
        for piece in _finite_pieces(curve):
            places = [f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in piece]
            # A piece of one point is drawn as a dot, by the round ends of a line of no length.
            places = places * 2 if len(places) == 1 else places
            parts.append(
                f'<polyline class="line" {_stroke(index)} points="{" ".join(places)}">'
                f"<title>{escape(name)}</title></polyline>"
            )
    items = [
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true">'
        f'<path class="line" {_stroke(index)} d="M1 5H25"/></svg>{escape(name)}</li>'
        for index, name in enumerate(chart.series)
    ]
    # One curve is what the title says.
    legend = f'<ul class="legend">{"".join(items)}</ul>\n' if len(items) > 1 else ""
    label = escape(f"{chart.title}: {chart.y_label} over {chart.x_label}")
    return (
        f"<figure>\n<h3>{escape(chart.title)}</h3>\n{legend}"
        f'<svg viewBox="0 0 {CHART_WIDTH:g} {CHART_HEIGHT:g}" role="img" aria-label="{label}">\n'
        + "\n".join(parts)
        + f"\n</svg>\n{_caption(chart.caption)}</figure>"
    )


def _blocks(blocks: Sequence[Block]) -> str:
    parts: list[str] = []
    charts: list[str] = []
    for block in [*blocks, None]:
        if isinstance(block, Chart):
            charts.append(line_chart(block))
            continue
        if charts:
            parts.append('<div class="charts">\n' + "\n".join(charts) + "\n</div>")
            charts = []
        if block is not None:
            parts.append(_block(block))
    return "\n".join(parts)


def _block(block: Text | Table | Figure | Strip) -> str:
    if isinstance(block, Text):
        paragraphs = block.text.strip().split("\n\n")
        return "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        return _figure(block)
    figures = [_figure(figure, least_width=STRIP_WIDTH) for figure in block.figures]
    return '<div class="strip">\n' + "\n".join(figures) + "\n</div>"


def _figure(figure: Figure, least_width: int = 0) -> str:
    with Image.open(io.BytesIO(figure.data)) as picture:
        kind = picture.format
        width, height = (figure.scale * side for side in picture.size)
    if kind not in ("PNG", "GIF"):
        raise ValueError(f"a figure holds a PNG or GIF file, got {kind}")
    source = f"data:image/{kind.lower()};base64,{base64.b64encode(figure.data).decode()}"
    enlarged = ' class="enlarged"' if figure.scale > 1 else ""
    style = f' style="min-width: {min(least_width, width)}px"' if least_width else ""
    return (
        f'<figure{style}><img{enlarged} width="{width}" height="{height}" '
        f'alt="{escape(figure.caption)}" src="{source}">{_caption(figure.caption)}</figure>'
    )


def _table(table: Table) -> str:
    flush = [
        ' class="number"' if all(_is_number(row[column]) for row in table.rows) else ""
        for column in range(len(table.header))
    ]
    head = "".join(
        f"<th{kind}>{escape(name)}</th>" for kind, name in zip(flush, table.header, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(flush, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<figure><div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>{_caption(table.caption)}</figure>"
    )


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _stroke(index: int) -> str:
    dash = DASHES[index % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'style="stroke: var(--s{index % NUM_COLORS})"{dashed}'


def _is_finite(x: float, y: float) -> bool:
    return math.isfinite(x) and math.isfinite(y)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True


def _finite_pieces(curve: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Cut a curve where a point is not finite."""
    piece: list[tuple[float, float]] = []
    for x, y in [*curve, (math.nan, math.nan)]:
        if _is_finite(x, y):
            piece.append((x, y))
        elif piece:
            yield piece
            piece = []


def _ticks(values: Sequence[float], *, num: int) -> list[float]:
    """Round numbers at equal steps, about `num`, from at most the least value to the greatest."""
    low, high = _span(values or [0.0])
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest value, kept apart when they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _number(value: float) -> str:
    return f"{value:g}"
