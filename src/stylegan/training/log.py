"""The log of a run: one JSON object per line, and TensorBoard events if it is installed."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan.files import append_lines, write_atomic

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class RunLog:
    """Appends records to `log.jsonl` and `metrics.jsonl`, and numbers to TensorBoard.

    When it is opened, records beyond the position of the run are deleted: the resumed run writes
    them again, and they are equal except for the key "time" and the times of metrics.

    Args:
        run_dir: the run's folder.
        nimg: images shown at the position where the run continues; 0 for a new run.

    Attributes:
        ticks: the records of kind "tick" so far, oldest first.
    """

    def __init__(self, run_dir: Path, *, nimg: int) -> None:
        self._path = run_dir / "log.jsonl"
        kept = [record for record in read_log(run_dir) if record["nimg"] <= nimg and nimg > 0]
        write_atomic(self._path, "".join(_line(record) for record in kept))
        self.ticks = [record for record in kept if record.get("kind") == "tick"]
        self._warned = {record["sign"] for record in kept if record.get("kind") == "warning"}
        self._metrics_path = run_dir / METRICS
        _cut_metrics(self._metrics_path, nimg)
        self._events = _open_events(run_dir / "events", nimg)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record with a key "nimg"; it is on the disk when this returns."""
        append_lines(self._path, _line(record))
        if record.get("kind") == "tick":
            self.ticks.append(record)
        if self._events is not None:
            numbers = record.get("terms", {}) | {
                f"{part}/{key}": value
                for part in ("growth", "time", "metrics")
                for key, value in record.get(part, {}).items()
                if isinstance(value, int | float)
            }
            for name, value in numbers.items():
                self._events.add_scalar(name, value, global_step=record["nimg"])
            self._events.flush()

    def warn_once(self, texts: Mapping[str, str], *, nimg: int) -> None:
        """Warn of signs that the run has not been warned of, and write them to the log.

        Args:
            texts: the text of each sign, by its name.
            nimg: images shown.
        """
        for sign, text in texts.items():
            if sign not in self._warned:
                self._warned.add(sign)
                self.write({"kind": "warning", "nimg": nimg, "sign": sign, "text": text})
                logger.warning("%s", text)

    def write_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append complete records of metrics, each with a key "nimg", to `metrics.jsonl`.

        All lines are written at once, as another process may append to the file as well.
        """
        append_lines(self._metrics_path, "".join(_line(record) for record in records))

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """Return the records of a run's log up to the first incomplete or damaged line."""
    path = Path(run_dir) / "log.jsonl"
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("nimg"), int):
            logger.warning("%s: read up to line %d, which is damaged", path, len(records) + 1)
            break
        records.append(record)
    return records


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the records of snapshots in a run's `metrics.jsonl`.

    Other lines are skipped, such as one that another process is writing at this moment.
    """
    records = (record for _, record in _metric_lines(Path(run_dir) / METRICS))
    return [record for record in records if record is not None]


def _metric_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield each line with the record of a snapshot in it, or None."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        match record:
            case {"nimg": int(), "metric": str(), "value": int() | float()}:
                yield line, record
            case _:
                yield line, None


def _cut_metrics(path: Path, nimg: int) -> None:
    """Delete the records of snapshots beyond a position; other lines are kept."""
    lines = list(_metric_lines(path))
    kept = [line for line, record in lines if record is None or record["nimg"] <= nimg]
    if len(kept) < len(lines):  # otherwise do not touch it, as another process may be writing
        write_atomic(path, "".join(f"{line}\n" for line in kept))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(dict(record), allow_nan=False) + "\n"


def _open_events(folder: Path, nimg: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("no TensorBoard events: pip install 'stylegan[log]' to have them")
        return None
    # TensorBoard hides events beyond the position
    return SummaryWriter(log_dir=str(folder), purge_step=nimg + 1)
