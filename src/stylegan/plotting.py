"""Plots as PNG files, by matplotlib of the extra [plot]."""

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from stylegan.extras import import_extra
from stylegan.files import write_atomic

WIDTH, HEIGHT = 6.4, 4.0  # inches
DPI = 110
GENERATED, REAL = "#2a6fdb", "#d9822b"  # differ for the color-blind, and in grey


def import_matplotlib(what: str) -> ModuleType:
    """Import matplotlib for drawing into files.

    Args:
        what: name of the plot, for the error.

    Raises:
        ConfigError: if it is not installed.
    """
    matplotlib = import_extra("matplotlib", extra="plot", purpose=what)
    matplotlib.use("Agg")
    return matplotlib


def plot_bytes(draw: Callable[[Any], None], *, what: str, width: float = WIDTH) -> bytes:
    """Draw a figure, and return it as PNG.

    Args:
        draw: draws on matplotlib's `Axes`.
        what: name of the plot, for the error if matplotlib is missing.
        width: in inches.
    """
    import_matplotlib(what)
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, HEIGHT), dpi=DPI, layout="constrained")
    try:
        draw(axes)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    finally:
        pyplot.close(figure)
    return buffer.getvalue()


def write_plot(draw: Callable[[Any], None], path: Path, *, what: str) -> None:
    """Write a figure of `plot_bytes` as a PNG file, atomically."""
    write_atomic(path, plot_bytes(draw, what=what))
