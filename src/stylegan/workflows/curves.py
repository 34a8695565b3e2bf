"""Charts of the log of a run."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stylegan.plotting import DPI, import_matplotlib
from stylegan.workflows.page import Chart

X_LABEL = "images shown (thousands)"
CURVES = (
    # title, unit, names in the log with their names in the chart
    ("Adversarial loss", "loss (nats)", {"loss/G": "generator", "loss/D": "discriminator"}),
    (
        "Discriminator output",
        "mean logit",
        {"logits/real": "real images", "logits/fake": "generated images"},
    ),
    (
        "Training and held-out images",
        "mean logit",
        {"logits/training": "training images", "logits/held_out": "held-out images"},
    ),
    (
        "Overfitting of the discriminator",
        "r_t, r_v, p",
        {
            "logits/real_sign": "mean sign for real images (r_t)",
            "overfitting/r_v": "held-out images (r_v)",
            "augment/p": "probability of augmentation",
        },
    ),
    ("Diversity of samples", "relative to real images", {"samples/diversity": "samples"}),
    ("Gradient norms", "norm", {"grad_norm/G": "generator", "grad_norm/D": "discriminator"}),
    ("R1 penalty", "squared gradient norm", {"r1/penalty": "R1"}),
    ("Path length", "mean length", {"path_length/mean": "path length"}),
)

COLUMNS = 3
CHART_SIZE = 4.0, 2.6  # inches


def evenly(items: Sequence[Any], num: int) -> list[Any]:
    """Return at most `num` items at equal distances, including the first and the last."""
    if len(items) <= num:
        return list(items)
    return [items[round(index * (len(items) - 1) / (num - 1))] for index in range(num)]


def charts(log: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return the charts of `CURVES` that the log has, and of the speed, over images shown."""
    drawn = []
    for title, unit, names in CURVES:
        series = {
            shown: [
                (line["nimg"] / 1e3, line["terms"][name]) for line in log if name in line["terms"]
            ]
            for name, shown in names.items()
        }
        drawn.append(Chart(title=title, series=series, x_label=X_LABEL, y_label=unit))
    speed = [(line["nimg"] / 1e3, line["time"]["images_per_second"]) for line in log]
    drawn.append(
        Chart(title="Speed", series={"speed": speed}, x_label=X_LABEL, y_label="images per second")
    )
    return drawn


def metric_charts(log: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart of each metric that was computed during training, over images shown."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        for name, value in line["metrics"].items() if line["kind"] == "metrics" else ():
            curves.setdefault(name, []).append((line["nimg"] / 1e3, value))
    return [
        Chart(title=name, series={name: curve}, x_label=X_LABEL, y_label="value")
        for name, curve in curves.items()
    ]


def charts_png(drawn: Sequence[Chart]) -> bytes:
    """Return one PNG file of the charts that have points, three in a row.

    Raises:
        ConfigError: if matplotlib is not installed.
    """
    import_matplotlib("curves")
    from matplotlib import pyplot

    shown = [chart for chart in drawn if any(chart.series.values())]
    rows = math.ceil(len(shown) / COLUMNS)
    size = CHART_SIZE[0] * COLUMNS, CHART_SIZE[1] * rows
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=size, dpi=DPI, layout="constrained", squeeze=False
    )
    try:
        for place in axes.flat[len(shown) :]:
            place.axis("off")
        for place, chart in zip(axes.flat, shown, strict=False):
            for name, points in chart.series.items():
                if points:
                    # a single point is no line
                    marker = "." if len(points) < 30 else None
                    place.plot(*zip(*points, strict=True), label=name, marker=marker)
            place.set_title(chart.title, fontsize="medium")
            place.set_xlabel(chart.x_label, fontsize="small")
            place.set_ylabel(chart.y_label, fontsize="small")
            place.tick_params(labelsize="small")
            place.spines[["top", "right"]].set_visible(False)
            if len(chart.series) > 1:
                place.legend(frameon=False, fontsize="small")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    finally:
        pyplot.close(figure)
    return buffer.getvalue()
