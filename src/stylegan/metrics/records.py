"""JSON records of results, and the conditions for comparing two of them."""

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
"""A result as JSON-like values. docs/evaluate.md lists the keys."""

# Fields that must be equal for two values to be comparable. Seed, device, versions and times may
# differ.
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
    "real.view",
    "fake.kind",
    "fake.side",
    "fake.num",
    "fake.labels",
    "fake.truncation",
    "fake.noise",
    "fake.precision",
    "fake.view",
    "classifiers",
)


_VIEWS = ("real.view", "fake.view")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two values of one metric.

    Attributes:
        metric: its name.
        first: record of the first file.
        second: record of the second file.
        differences: differing fields that allow a comparison, as (field, first, second).
    """

    metric: str
    first: Record
    second: Record
    differences: Sequence[tuple[str, object, object]]


def comparable_key(record: Mapping[str, Any]) -> str:
    """Return a digest of all settings of a result, including the seed of generated images.

    Values of two networks can be ranked if their records have equal keys.

    Args:
        record: a complete record, or the result of `facts_of`.

    Returns:
        16 hexadecimal digits, the same before and after the record went through a file.
    """
    values: list[object] = []
    for name in (*COMPARED, "fake.seed"):
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None or name not in _VIEWS:  # keys of records without one stay the same
            values.append(value)
    text = json.dumps(values, sort_keys=True)
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
    """Append a record to a JSON Lines file, and flush it to disk."""
    append_lines(path, json.dumps(record, allow_nan=False) + "\n")


def read(path: str | os.PathLike[str]) -> list[Record]:
    """Return the records of a file.

    Raises:
        DataError: if the file cannot be read, or a line is not a record.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or 'not a text file'})"
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
                f"line {number} of {path} is not a JSON object with a metric and a value"
            )
        records.append(record)
    return records


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> list[Comparison]:
    """Pair the last record of each metric that both files have.

    Raises:
        DataError: if there is none, or the settings of a pair differ.
    """
    latest_first, latest_second = ({r["metric"]: r for r in read(path)} for path in (first, second))
    shared = [metric for metric in latest_first if metric in latest_second]
    if not shared:
        raise DataError(
            f"no metric is in both files: {first} has {_listed(latest_first)}, and {second} has "
            f"{_listed(latest_second)}"
        )
    pairs = []
    for metric in shared:
        a, b = latest_first[metric], latest_second[metric]
        differences = list(_differences(a, b))
        for field, one, other in differences:
            if any(field == name or field.startswith(f"{name}.") for name in COMPARED):
                raise DataError(
                    f"{metric} cannot be compared: {field} is {one!r} in {first} and {other!r} in "
                    f"{second}"
                )
        pairs.append(Comparison(metric=metric, first=a, second=b, differences=differences))
    return pairs


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield the fields in which two records differ, with dotted names if they are nested."""
    for key in [*a, *(key for key in b if key not in a)]:
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}", one, other


def _is_record(content: object) -> bool:
    """Return whether a parsed line has the fields that all readers of records need."""
    match content:
        case {"metric": str(), "value": int() | float() as value}:
            return not isinstance(value, bool) and math.isfinite(value)
    return False


def _listed(records: Mapping[str, Record]) -> str:
    return ", ".join(records) or "no records"
