"""Checkpoints, and the files that make a folder that of a run."""

import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from stylegan.errors import CheckpointError, ConfigError
from stylegan.files import write_atomic, write_atomic_by
from stylegan.training.config import RunConfig, differences

logger = logging.getLogger(__name__)

VERSION = 1
LOCK = ".lock"
PICTURES = "pictures.png"
"""Images of the initial network, which the demo writes before its run starts."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of a run's `config.json`.

    Attributes:
        config: options of the run.
        fingerprint: of its images.
        metrics: arguments of `stylegan.train` that choose the metrics of snapshots: those of
            `metrics`, `metrics_fraction` and `weights_dir` that were given.
        num_images: that are trained on, without mirrored ones; None in older runs.
        machine: what the run was last started on; None in older runs.
        history: the runs before this one, see `training.history`.
    """

    config: RunConfig
    fingerprint: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    num_images: int | None = None
    machine: str | None = None
    history: Sequence[Mapping[str, Any]] = ()


def save_checkpoint(run_dir: Path, state: dict[str, Any], *, nimg: int, keep: int) -> Path:
    """Write `checkpoints/NNNNNNNNN.pt` atomically, and delete old checkpoints.

    Args:
        run_dir: the run's folder.
        state: tensors and plain values.
        nimg: images shown; the file's name.
        keep: number of checkpoints that are kept.

    Raises:
        CheckpointError: if the file cannot be written, as with a full disk.
    """
    path = run_dir / "checkpoints" / f"{nimg:09d}.pt"
    try:
        write_atomic_by(path, lambda file: torch.save({"version": VERSION, "state": state}, file))
    except RuntimeError as error:  # torch raises it for a full disk
        raise CheckpointError(
            f"{path} cannot be written ({_first_line(error)})",
            fix="free disk space; the same command continues from the checkpoint before",
        ) from error
    for old in list_checkpoints(run_dir)[:-keep]:
        old.unlink()
    return path


def load_newest_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint that is intact, or None if there is none at all.

    A damaged one is skipped with a warning and renamed to `.pt.damaged`, as otherwise it would be
    kept in place of the checkpoints that follow, which have lower numbers.

    Raises:
        CheckpointError: if there are checkpoints and none can be read.
    """
    for leftover in (run_dir / "checkpoints").glob("*.tmp"):
        logger.warning("%s: deleted, it was incomplete when the run ended", leftover)
        leftover.unlink()
    paths = list_checkpoints(run_dir)
    damaged = []
    for path in reversed(paths):
        try:
            _check_sums(path)
            data = torch.load(path, map_location="cpu", weights_only=True)
            version, state = data["version"], data["state"]
        except Exception as error:  # torch.load raises many kinds on a damaged file
            logger.warning("%s: skipped, it cannot be read (%s)", path, _first_line(error))
            damaged.append(path)
            continue
        if version != VERSION:
            raise CheckpointError(
                f"{path} has version {version}, but this release reads version {VERSION}",
                fix="continue the run with the release that wrote it",
            )
        for skipped in damaged:
            skipped.replace(skipped.with_name(skipped.name + ".damaged"))
        result: dict[str, Any] = state
        return result
    if paths:
        raise CheckpointError(
            f"none of the {len(paths)} checkpoints in {run_dir / 'checkpoints'} can be read",
            fix="start a new run with --init-from and the last of snapshots/",
        )
    return None


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoint files, oldest first."""
    paths = (run_dir / "checkpoints").glob("*.pt")
    return sorted(path for path in paths if path.stem.isascii() and path.stem.isdecimal())


def read_config(run_dir: Path) -> RunConfig | None:
    """Return the config of the run in a folder, or None if there is none that can be read."""
    try:
        record = read_run_record(run_dir)
    except (OSError, CheckpointError):
        return None
    return None if record is None else record.config


def read_run_record(run_dir: Path) -> RunRecord | None:
    """Return the content of a run's `config.json`; None if the folder has no such file.

    Raises:
        CheckpointError: if the file does not hold the options of a run.
    """
    path = run_dir / "config.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return RunRecord(
            config=RunConfig.from_json(content["config"]),
            fingerprint=content["fingerprint"],
            metrics=dict(content.get("metrics", {})),
            num_images=content.get("num_images"),
            machine=content.get("machine"),
            history=tuple(content.get("history", ())),
        )
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} does not hold the options of a run ({_first_line(error)})",
            fix="choose another --out",
        ) from error


def check_run_folder(run_dir: Path, config: RunConfig, *, fingerprint: str) -> None:
    """Check that a run may start in a folder, or continue in it with this config and these images.

    Raises:
        CheckpointError: if the folder holds something else, if an option that changes the result
            differs, or if the images differ.
    """
    record = read_run_record(run_dir)
    if record is not None:
        changed = differences(record.config, config)
        if changed:
            raise CheckpointError(
                f"{run_dir} was started with other options ({'; '.join(changed)})",
                fix="use the same options, or choose another --out (with --init-from to start from "
                "its weights)",
            )
        if record.fingerprint != fingerprint:
            raise CheckpointError(
                f"{config.data.path} holds other images than when {run_dir} was started",
                fix="restore them, or choose another --out",
            )
    else:
        check_folder_is_free(run_dir)


def check_folder_is_free(run_dir: Path) -> None:
    """Check that a run may start in a folder that does not hold one.

    Raises:
        CheckpointError: if it is a file, or holds something.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise CheckpointError(f"{run_dir} is a file, not a folder", fix="choose another --out")
    if run_dir.exists() and any(entry.name not in (LOCK, PICTURES) for entry in run_dir.iterdir()):
        raise CheckpointError(
            f"{run_dir} is not empty, and is not the folder of a run",
            fix="choose another --out",
        )


def write_run_record(run_dir: Path, record: RunRecord) -> None:
    """Write `config.json`; a folder that has it is the folder of a run."""
    content = {
        "config": record.config.to_json(),
        "fingerprint": record.fingerprint,
        "metrics": dict(record.metrics),
        "num_images": record.num_images,
        "machine": record.machine,
        "history": list(record.history),
    }
    write_atomic(run_dir / "config.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def lock_run_folder(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder in the block.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        CheckpointError: if another process holds the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / LOCK, blocking=False):
            yield
    except Timeout as error:
        raise CheckpointError(
            f"another process is training in {run_dir}", fix="stop it, or choose another --out"
        ) from error


def _check_sums(path: Path) -> None:
    """Compare every entry of the file with its CRC, which torch.load does not do."""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not match its checksum")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
