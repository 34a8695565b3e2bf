"""The history of networks: the runs that they come from, one after the other.

A run that starts from the networks of another run records what is known of that run, as its folder
may be gone later. Each stage is JSON data with the keys

    source       how the networks were named, such as a file of another program
    nimg         real images shown in this stage; None if that is not known, as all that follow
    seconds      of the stage, including metrics
    run          the options, `RunConfig.to_json`
    num_images   images of the training set
    fingerprint  of the training set
    machine      what it was trained on
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan.interop.load import weights_path
from stylegan.models import io
from stylegan.training.checkpoint import read_run_record
from stylegan.training.log import read_log

Stage = dict[str, Any]
KEYS = ("source", "nimg", "seconds", "run", "num_images", "fingerprint", "machine")


def stages_of(source: str | Path) -> list[Stage]:
    """Return the stages of training of a network, oldest first.

    Args:
        source: a source as `stylegan.load` takes it. More is known of a snapshot in its run's
            folder than of a copy of it.
    """
    path = weights_path(source)
    metadata: Mapping[str, Any] = io.read_metadata(path) if io.is_native(path) else {}
    stage: Stage = {key: metadata.get(key) for key in KEYS} | {"source": str(source)}
    history = metadata.get("history") or _before(metadata.get("run"))
    run_dir = path.parents[1] if path.parent.name in ("snapshots", "best") else None
    record = None if run_dir is None else read_run_record(run_dir)
    if run_dir is not None and record is not None:
        stage |= {
            "seconds": seconds_of(run_dir, nimg=metadata.get("nimg")),
            "num_images": record.num_images,
            "fingerprint": record.fingerprint,
            "machine": record.machine,
        }
    return [*history, stage]


def _before(run: Mapping[str, Any] | None) -> list[Stage]:
    """Return the stages before a run that did not record them."""
    source = None if run is None else run.get("init_from")
    if source is None:
        return []
    if Path(source).exists():
        return stages_of(source)
    return [dict.fromkeys(KEYS) | {"source": source}]


def seconds_of(run_dir: Path, *, nimg: int | None) -> float:
    """Return how long a run took, in seconds: the sum of the times in its log.

    Args:
        run_dir: the run's folder.
        nimg: only up to this number of images shown; None for all.
    """
    return sum(
        float(record["time"]["seconds"])
        for record in read_log(run_dir)
        if record["kind"] == "tick" and (nimg is None or record["nimg"] <= nimg)
    )
