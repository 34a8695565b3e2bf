"""The best snapshot of a run by each metric, kept under `best/`."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from stylegan.files import replace_folder
from stylegan.models import io
from stylegan.training.log import read_metrics

DESCRIPTION = "best.json"
LOCK = ".lock"


def best_folder(run_dir: Path, metric: str) -> Path:
    """Return the folder of a run's best snapshot by a metric.

    Args:
        run_dir: the run's folder.
        metric: name of the metric, such as "fid2k_full:efficientnet-lite0". The colon becomes a
            dash, as some systems do not allow it in a folder's name.

    Raises:
        ValueError: if the name cannot be that of a folder.
    """
    name = metric.replace(":", "-")
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"a metric's name must be usable as a folder's name, got {metric!r}")
    return Path(run_dir) / "best" / name


def keep_best(run_dir: Path, record: Mapping[str, Any], snapshot: Path) -> bool:
    """Make `best/METRIC/` a copy of the best snapshot by the metric of a record.

    The best is the one with the lowest value in `metrics.jsonl`, or the highest if the record says
    that higher is better; of equal ones the earliest. Only snapshots measured with the same
    settings and images ("comparable") as the record compete, and only those that still exist or
    are the current copy. The folder is a native one, with a file `best.json` that holds metric,
    value, nimg and "comparable". Several processes may do this at once.

    Args:
        run_dir: the run's folder.
        record: with "metric", "value", "lower_is_better", "nimg", and "comparable" if it is
            known; whether `metrics.jsonl` contains it already does not matter.
        snapshot: the folder of the networks that the record is about.

    Returns:
        Whether `snapshot` is the best.
    """
    metric, nimg = record["metric"], record["nimg"]
    sign = 1 if record["lower_is_better"] else -1
    folder = best_folder(run_dir, metric)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / LOCK):
        # Read within the lock, so that a later process sees all results of earlier ones.
        current = _description_at(folder)
        group = {"metric": metric, "comparable": record.get("comparable")}
        scores = [
            {**group, "value": other["value"], "nimg": other["nimg"]}
            for other in (record, *read_metrics(run_dir))
            if math.isfinite(other["value"])
            and all(other.get(key) == value for key, value in group.items())
        ]
        for score in sorted(scores, key=lambda score: (sign * score["value"], score["nimg"])):
            is_new = score["nimg"] == nimg
            source = snapshot if is_new else run_dir / "snapshots" / f"{score['nimg']:09d}"
            if score != current and not io.is_native(source):
                continue
            if score != current:
                _copy(source, folder, score)
            return bool(is_new)
    return False


def _copy(source: Path, folder: Path, description: Mapping[str, Any]) -> None:
    """Copy a snapshot together with its description, atomically."""
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
    """Return the content of `best.json`; None if it or the networks cannot be read."""
    if not io.is_native(folder):
        return None
    try:
        return json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
