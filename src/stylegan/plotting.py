"""Curves and bars as PNG files, by matplotlib, which is an extra."""

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from stylegan.errors import ConfigError
from stylegan.files import write_atomic

WIDTH, HEIGHT = 6.4, 4.0  # inches
DPI = 110
OWN, REAL = "#2a6fdb", "#d9822b"  # told apart by the color-blind, and in grey


def import_matplotlib(what: str) -> ModuleType:
    """Import matplotlib for drawing into files.

    Args:
        what: is to be drawn, for the error.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(
            f"{what}: matplotlib is not installed",
            expected="the extra [plot], which draws curves",
            fix="pip install 'stylegan[plot]'",
        ) from None
    matplotlib.use("Agg")
    module: ModuleType = matplotlib
    return module


def plot_bytes(draw: Callable[[Any], None], *, what: str, width: float = WIDTH) -> bytes:
    """Draw on the axes of a new figure, and return it as PNG.

    Args:
        draw: takes matplotlib's `Axes`.
        what: for the error, if matplotlib is missing.
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
    """Write a figure of `plot_bytes` as a PNG file, whole or not at all."""
    write_atomic(path, plot_bytes(draw, what=what))
