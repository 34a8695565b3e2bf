"""The live line of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stylegan.image_size import ImageSize
from stylegan.training.loop import Progress


class LiveLine:
    """The state of a run: a live line on a terminal, else a plain line per record of the log.

    Args:
        out: the console.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, refresh_per_second=2) if out.is_terminal else None
        self._terms: list[str] = []

    def __enter__(self) -> "LiveLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the last state as it is."""
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show the state after an iteration."""
        if progress.record is not None:
            self._terms = describe(progress.record)
        position = [
            f"kimg {progress.nimg / 1000:.1f}/{progress.total_nimg / 1000:g}",
            f"{progress.images_per_second:.1f} img/s",
            f"left {_duration(progress.seconds_left)}",
        ]
        if self._live is not None:
            lines = [*fit(position, self._out.width), *fit(self._terms, self._out.width)]
            self._live.start()  # at the first state: until then another bar may be drawn
            self._live.update(Text("\n".join(lines)))
        elif progress.record is not None:
            self._out.print("  ".join([*position, *self._terms]), markup=False)


def fit(fields: Sequence[str], width: int) -> list[str]:
    """Arrange fields in lines of a terminal; a field is not split."""
    lines: list[str] = []
    for field in fields:
        if lines and len(lines[-1]) + 2 + len(field) <= width:
            lines[-1] += f"  {field}"
        else:
            lines.append(field)
    return lines


def describe(record: Mapping[str, Any]) -> list[str]:
    """Return fields for a record of the log: level, losses, regularizers, norms, times."""
    terms, shares = record["terms"], record["time"]["share"]
    growth = record.get("growth")
    where = []
    if growth is not None:
        size, batch = ImageSize.of(growth["resolution"]), growth["batch"]
        where = [f"{size} lod {growth['lod']:.2f} batch {batch}"]
    names = {
        "loss/G": "G",
        "loss/D": "D",
        "r1/penalty": "R1",
        "gradient_penalty": "penalty",
        "label_loss/real": "labels",
        "path_length/mean": "path length",
        "grad_norm/G": "|grad G|",
        "grad_norm/D": "|grad D|",
    }
    values = [f"{label} {terms[name]:.3g}" for name, label in names.items() if name in terms]
    times = [f"{kind} {100 * share:.0f}%" for kind, share in shares.items()]
    skipped = [f"skipped {record['skipped']}"] if record["skipped"] else []
    return [*where, *values, *skipped, "time: " + " ".join(times)]


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{int(seconds) % 60:02d}"
