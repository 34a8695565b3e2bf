import base64
import io
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from stylegan import images
from stylegan.workflows.page import (
    Chart,
    Figure,
    Row,
    Section,
    Table,
    Text,
    frame,
    page,
    table,
    write_page,
)

VOID = {"meta", "link", "img", "line", "br"}


class Outline(HTMLParser):
    """Collects the tags with their attributes, and fails where they do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(html):
    parser = Outline()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.tags


def picture(size=8):
    return images.png_bytes(torch.arange(3 * size * size, dtype=torch.uint8).view(3, size, size))


def chart(**changes):
    options = {
        "title": "Loss",
        "series": {"generator": [(0, 1), (10, 3)], "discriminator": [(0, 2), (10, 2)]},
        "x_label": "images shown (kimg)",
        "y_label": "loss (nats)",
    }
    return Chart(**(options | changes))


def full_page():
    return page(
        "A <title> & more",
        sections=[
            Section(title="One", blocks=[Text(text="First.\n\nSecond <b>."), chart(), chart()]),
            Section(
                title="Two",
                blocks=[
                    Row(
                        figures=[
                            Figure(data=picture(), caption="a"),
                            Figure(data=picture(), caption="b"),
                        ]
                    ),
                    Table(header=["level", "distance"], rows=[["32", "1.5"], ["all", "2,000"]]),
                ],
            ),
        ],
    )


def chart_html(chart):
    """Return the figure of a chart in a page."""
    html = page("p", sections=[Section(title="s", blocks=[chart])])
    return html.partition('<div class="charts">')[2].partition("</div>")[0]


def polylines(svg):
    return [
        [tuple(map(float, point.split(","))) for point in match.split()]
        for match in re.findall(r'<polyline[^>]*points="([^"]*)"', svg)
    ]


def test_a_page_is_well_formed_and_shows_everything_in_order():
    html = full_page()
    tags = [tag for tag, _ in outline(html)]
    assert tags.count("h2") == 2
    assert tags.count("img") == 2
    order = [
        html.index(piece) for piece in ("One", "First.", "Second", "<svg", "Two", "<img", "<table")
    ]
    assert order == sorted(order)


def test_text_is_escaped_wherever_it_comes_from():
    evil = '"><script>x</script>'
    html = page(
        evil,
        sections=[
            Section(
                title=evil,
                blocks=[
                    Text(text=evil),
                    Table(header=[evil], rows=[[evil]], caption=evil),
                    Figure(data=picture(), caption=evil),
                    chart(
                        title=evil,
                        series={evil: [(0, 0)], evil + "2": []},
                        x_label=evil,
                        y_label=evil,
                    ),
                ],
            )
        ],
    )
    assert "<script" not in html
    outline(html)


def test_a_page_asks_for_nothing_and_runs_nothing():
    html = full_page()
    for tag, attributes in outline(html):
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html
    assert "http:" not in html
    assert "https:" not in html


def test_a_figure_holds_the_file_itself_at_its_size():
    data = picture(8)
    html = page(
        "p", sections=[Section(title="s", blocks=[Figure(data=data, caption="c", scale=3)])]
    )
    (attributes,) = [attributes for tag, attributes in outline(html) if tag == "img"]
    kind, content = attributes["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == data
    assert (attributes["width"], attributes["height"]) == ("24", "24")
    assert attributes["alt"] == "c"


def test_a_gif_is_named_as_one_and_anything_else_is_refused():
    for kind in ("gif", "bmp"):
        buffer = io.BytesIO()
        images.pil_image(torch.zeros(3, 4, 4, dtype=torch.uint8)).save(buffer, kind)
        sections = [Section(title="s", blocks=[Figure(data=buffer.getvalue(), caption="c")])]
        if kind == "gif":
            assert "data:image/gif;base64," in page("p", sections=sections)
        else:
            with pytest.raises(ValueError, match="PNG or GIF"):
                page("p", sections=sections)


def test_charts_in_a_row_share_one_box_and_others_end_it():
    html = page(
        "p", sections=[Section(title="s", blocks=[chart(), chart(), Text(text="t"), chart()])]
    )
    assert html.count('<div class="charts">') == 2
    assert html.count("<svg viewBox") == 3 + 3 * 2  # with a legend of two each


def test_a_column_of_numbers_is_flush_right():
    table = Table(header=["level", "distance"], rows=[["32", "1.5"], ["all", "2,000"]])
    html = page("p", sections=[Section(title="s", blocks=[table])])
    cells = [attributes.get("class") for tag, attributes in outline(html) if tag == "td"]
    assert cells == [None, "number"] * 2


def test_curves_go_where_their_numbers_say():
    first, second = polylines(chart_html(chart()))
    (left, bottom), (right, top) = first
    assert left < right
    assert bottom > top  # SVG counts downwards
    # The other curve is level, half way between 1 and 3.
    assert second[0][1] == second[1][1] == pytest.approx((bottom + top) / 2, abs=0.1)
    assert (second[0][0], second[1][0]) == (left, right)


def test_axes_have_round_ticks_their_units_and_a_legend():
    html = chart_html(chart())
    outline(html)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", html)
    assert texts == [
        "loss (nats)",
        *("1", "1.5", "2", "2.5", "3"),
        *("0", "2", "4", "6", "8", "10"),
        "images shown (kimg)",
    ]
    assert re.findall(r"</svg>(\w+)</li>", html) == ["generator", "discriminator"]


def test_a_tick_stands_at_its_value():
    html = chart_html(chart(series={"a": [(0, 0), (10, 5)]}))
    y_of = {
        float(text): float(y) - 4
        for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([-\d.]+)<', html)
    }
    x_of = {
        float(text): float(x)
        for x, text in re.findall(
            r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">(\d+)<', html
        )
    }
    ((start, end),) = polylines(html)
    assert start == pytest.approx((x_of[0], y_of[0]))
    assert end == pytest.approx((x_of[10], y_of[5]))


def test_one_curve_needs_no_legend():
    assert "legend" not in chart_html(chart(series={"a": [(0, 0), (1, 1)]}))


def test_curves_differ_by_color_and_by_dash():
    html = chart_html(chart(series={str(n): [(0, n), (1, n)] for n in range(12)}))
    styles = re.findall(
        r'<polyline class="line" (style="[^"]*"(?: stroke-dasharray="[^"]*")?)', html
    )
    assert len(set(styles)) == 12


def test_points_that_are_not_finite_interrupt_the_curve():
    curve = [(0, 1), (1, 2), (2, math.nan), (3, 2), (4, math.inf), (5, 1), (6, 1)]
    pieces = polylines(chart_html(chart(series={"a": curve})))
    assert [len(piece) for piece in pieces] == [2, 2, 2]
    assert pieces[1][0] == pieces[1][1]  # a lone point, drawn as a dot
    html = chart_html(chart(series={"a": curve}))
    assert re.findall('polyline class="(.*?)"', html) == ["line", "dot", "line"]


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"a": []},
        {"a": [(0, math.nan)]},
        {"a": [(3, 5)]},
        {"a": [(0, 7), (1, 7)]},
        {"a": [(0, 1e-9), (1, 3e-9)]},
        {"a": [(0, -1e12), (1, 1e12)]},
        {"a": [(0, 1e9), (1, 1e9 + 1)]},
    ],
)
def test_a_chart_of_little_or_extreme_data_is_still_a_chart(series):
    html = chart_html(chart(series=series))
    outline(html)
    assert "nan" not in html.replace("finance", "")
    assert "inf" not in html
    for piece in polylines(html):
        for x, y in piece:
            assert 0 <= x <= 360
            assert 0 <= y <= 230


def test_writing_replaces_the_page_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_page(path, "first", sections=[])
    write_page(path, "second", sections=[])
    assert "<h1>second</h1>" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_notebook_shows_a_page_in_a_frame_of_its_own():
    evil = '"><script>x</script>'
    html = frame(evil, sections=[Section(title="s", blocks=[chart()])])
    ((tag, attributes),) = outline(html)
    assert tag == "iframe"
    assert attributes["srcdoc"] == page(evil, sections=[Section(title="s", blocks=[chart()])])


def test_a_table_for_a_notebook_is_escaped():
    html = table(["a", "<b>"], [["1", "&"]])
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert '<td class="number">1</td>' in html


def test_figures_of_a_row_shrink_to_no_less_than_240_pixels():
    figures = [Figure(data=picture(8), caption="a", scale=scale) for scale in (1, 100)]
    html = page("p", sections=[Section(title="s", blocks=[Row(figures=figures), figures[1]])])
    styles = [attributes.get("style") for tag, attributes in outline(html) if tag == "figure"]
    assert styles == ["min-width: 8px", "min-width: 240px", None]
