"""What is known of a number: one JSON record for each result, and when two may be compared."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan.errors import DataError
from stylegan.files import append_lines

Record = dict[str, Any]
"""One result, as JSON has it. docs/evaluate.md lists the keys."""

# What must be equal for two values to be values of the same thing. The seed, the device, versions
# and times may differ: that is what one compares over.
COMPARED = (
    "metric",
    "protocol",
    "features",
    "quantized",
    "tf32",
    "real.fingerprint",
    "real.side",
    "real.num",
    "real.choice",
    "real.mirrored",
    "fake.kind",
    "fake.side",
    "fake.num",
    "fake.labels",
    "fake.truncation",
    "fake.noise",
    "fake.precision",
    "classifiers",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two values of one metric.

    Attributes:
        metric: its name.
        first: record of the first file.
        second: record of the second file.
        differences: of what does not forbid the comparison, as (field, first, second).
    """

    metric: str
    first: Record
    second: Record
    differences: Sequence[tuple[str, object, object]]


def comparable_key(record: Mapping[str, Any]) -> str:
    """Return a short name of what a value is a value of, the seed of generated images included.

    Records with equal keys order two networks; of others the difference may lie elsewhere.

    Args:
        record: a whole one, or what `facts_of` knows of it.

    Returns:
        16 hexadecimal digits, the same before and after the record went through a file.
    """
    found: list[object] = []
    for name in (*COMPARED, "fake.seed"):
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found.append(value)
    text = json.dumps(found, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def with_comparable_key(record: Record) -> Record:
    """Return a record with its key under "comparable", by which snapshots of a run compete."""
    return record | {"comparable": comparable_key(record)}


def describe(record: Mapping[str, Any]) -> str:
    """Return a result as one line of text."""
    values = "  ".join(f"{name} {value:.5g}" for name, value in record["values"].items())
    error = "" if record["error"] is None else f" ± {record['error']:.2g}"
    fake, real = record["fake"]["num"], record["real"]
    counts = f"{fake:,} images" + ("" if real is None else f" against {real['num']:,}")
    return f"{record['metric']}: {values}{error}  ({counts}, {record['seconds']:.0f} s)"


def append(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append a record to a file of one JSON object a line; it is on the disk when this returns."""
    append_lines(path, json.dumps(record, allow_nan=False) + "\n")


def read(path: str | os.PathLike[str]) -> list[Record]:
    """Return the records of a file.

    Raises:
        DataError: if it cannot be read, or a line is no record.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or 'no text'})",
            expected="a file that `stylegan evaluate` wrote",
            fix="check the path",
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not _is_record(record):
            raise DataError(
                f"line {number} of {path} is no record of a metric",
                expected="a JSON object with metric and value",
                fix="remove the line",
            )
        records.append(record)
    return records


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> list[Comparison]:
    """Pair the last record of each metric that both files have.

    Raises:
        DataError: if there is none, or the records of a pair measure different things; it says
            which field differs.
    """
    latest_first, latest_second = ({r["metric"]: r for r in read(path)} for path in (first, second))
    shared = [metric for metric in latest_first if metric in latest_second]
    if not shared:
        raise DataError(
            f"{first} has {_listed(latest_first)}, and {second} has {_listed(latest_second)}",
            expected="a metric that both have",
            fix="evaluate both with the same --metrics",
        )
    pairs = []
    for metric in shared:
        a, b = latest_first[metric], latest_second[metric]
        differences = list(_differences(a, b))
        for field, one, other in differences:
            if any(field == name or field.startswith(f"{name}.") for name in COMPARED):
                raise DataError(
                    f"{metric}: {field} is {one!r} in {first} and {other!r} in {second}",
                    expected="two values of the same thing",
                    fix="evaluate both alike",
                )
        pairs.append(Comparison(metric=metric, first=a, second=b, differences=differences))
    return pairs


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield the fields in which two records differ, nested ones with their path."""
    for key in [*a, *(key for key in b if key not in a)]:
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}", one, other


def _is_record(found: object) -> bool:
    """Tell whether a line has what all readers of records use."""
    match found:
        case {"metric": str(), "value": int() | float() as value}:
            return not isinstance(value, bool) and math.isfinite(value)
    return False


def _listed(records: Mapping[str, Record]) -> str:
    return ", ".join(records) or "no records"
