"""The best snapshot of a run by each metric, kept under `best/`."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan.files import replace_folder
from stylegan.models import io
from stylegan.training.log import read_metrics

DESCRIPTION = "best.json"
LOCK = ".lock"


def best_folder(run_dir: Path, metric: str) -> Path:
    """Return where a run keeps its best snapshot by a metric.

    Args:
        run_dir: the run's folder.
        metric: its name, such as "fid2k_full:efficientnet-lite0"; some systems allow no colon in
            the name of a folder.

    Raises:
        ValueError: if the name is that of another place.
    """
    name = metric.replace(":", "-")
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"a metric's name becomes that of a folder, got {metric!r}")
    return Path(run_dir) / "best" / name


def keep_best(run_dir: Path, record: Mapping[str, Any], snapshot: Path) -> bool:
    """Make `best/METRIC/` a copy of the best snapshot by the metric of a record.

    The best is that of the least value in `metrics.jsonl`, or the greatest where the record says
    that more is better; of equal ones the earliest. Snapshots that are gone do not count, unless
    the copy is theirs; nor do records of another "comparable", which were measured in another
    way or on other images: the folder is always of the way of the latest record. It is a native
    one, with a file `best.json` that tells metric, value, nimg and "comparable". Several processes
    may do this at once.

    Args:
        run_dir: the run's folder.
        record: with "metric", "value", "lower_is_better", "nimg", and "comparable" if it is
            known; whether `metrics.jsonl` has it already does not matter.
        snapshot: the folder of the networks that the record is of.

    Returns:
        Whether `snapshot` is the best.
    """
    metric, nimg = record["metric"], record["nimg"]
    sign = 1 if record["lower_is_better"] else -1
    folder = best_folder(run_dir, metric)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent / LOCK):
        # Read within the lock: who comes later then sees all that was better before.
        held = _description_at(folder)
        group = {"metric": metric, "comparable": record.get("comparable")}
        scores = [
            {**group, "value": each["value"], "nimg": each["nimg"]}
            for each in (record, *read_metrics(run_dir))
            if math.isfinite(each["value"])
            and all(each.get(key) == value for key, value in group.items())
        ]
        for score in sorted(scores, key=lambda each: (sign * each["value"], each["nimg"])):
            is_own = score["nimg"] == nimg
            source = snapshot if is_own else run_dir / "snapshots" / f"{score['nimg']:09d}"
            if score != held and not io.is_native(source):
                continue
            if score != held:
                _copy(source, folder, score)
            return bool(is_own)
    return False


def _copy(source: Path, folder: Path, description: Mapping[str, Any]) -> None:
    """Copy a snapshot and describe it, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(source, temporary)
        text = json.dumps(dict(description), indent=2) + "\n"
        (temporary / DESCRIPTION).write_text(text, encoding="utf-8")
        replace_folder(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _description_at(folder: Path) -> object:
    """Return what `best.json` says; None if it, or the networks, cannot be read."""
    if not io.is_native(folder):
        return None
    try:
        return json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait until no other process holds a file, and hold it; the system lets go when one ends."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
