"""Two records are compared only if they measure the same thing."""

import json

import pytest

from stylegan.errors import DataError
from stylegan.metrics import records

RECORD = {
    "metric": "fid5k",
    "value": 12.5,
    "error": None,
    "protocol": {"name": "fid5k", "num_fake": 5000},
    "features": {"name": "inception-v3", "sha256": "aa"},
    "quantized": True,
    "fake": {"kind": "network", "num": 5000, "seed": 0, "truncation": 1.0, "noise": "random"},
    "real": {"fingerprint": "ff", "num": 5000, "mirrored": False},
    "classifiers": [],
    "seconds": 3.0,
}


def file_of(path, *found):
    for record in found:
        records.append(path, record)
    return path


def changed(field, value):
    record = json.loads(json.dumps(RECORD))
    *path, last = field.split(".")
    place = record
    for name in path:
        place = place[name]
    place[last] = value
    return record


def test_records_are_read_as_they_were_written(tmp_path):
    path = file_of(tmp_path / "a" / "m.jsonl", RECORD, changed("value", 3))
    assert records.read(path) == [RECORD, changed("value", 3)]


def test_the_last_values_are_compared_and_lesser_differences_are_reported(tmp_path):
    first = file_of(tmp_path / "a.jsonl", changed("value", 99.0), RECORD)
    second = file_of(tmp_path / "b.jsonl", changed("fake.seed", 7))
    (pair,) = records.compare(first, second)
    assert (pair.metric, pair.first["value"]) == ("fid5k", 12.5)
    assert pair.differences == [("fake.seed", 0, 7)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol.num_fake", 4999),
        ("features.sha256", "bb"),
        ("features", None),
        ("quantized", False),
        ("real.fingerprint", "00"),
        ("real.num", 4000),
        ("real.mirrored", True),
        ("real.choice", "spread"),
        ("real.side", 32),
        ("fake.side", 32),
        ("fake.labels", True),
        ("fake.num", 4000),
        ("fake.truncation", 0.7),
        ("fake.noise", "const"),
        ("fake.precision", "bfloat16"),
        ("tf32", True),
        ("fake.kind", "images"),
        ("classifiers", [{"name": "smiling"}]),
    ],
)
def test_values_of_different_things_are_refused_by_the_field(tmp_path, field, value):
    first = file_of(tmp_path / "a.jsonl", RECORD)
    second = file_of(tmp_path / "b.jsonl", changed(field, value))
    with pytest.raises(DataError, match=field.replace(".", r"\.")):
        records.compare(first, second)
    assert records.comparable_key(changed(field, value)) != records.comparable_key(RECORD)


def test_files_with_nothing_in_common_or_of_another_kind_are_refused(tmp_path):
    first = file_of(tmp_path / "a.jsonl", RECORD)
    second = file_of(tmp_path / "b.jsonl", changed("metric", "kid5k"))
    with pytest.raises(DataError, match="no metric is in both files"):
        records.compare(first, second)
    for line in (
        '{"metric": "fid5k", "value": NaN}',
        '{"metric": "fid5k", "value": true}',
        '{"metric": ["fid5k"], "value": 1}',
        '{"value": 1}',
        '{"metric": "fid5k"}',
        "[1]",
        "{",
    ):
        (tmp_path / "c.jsonl").write_text(line + "\n")
        with pytest.raises(DataError, match=r"line 1 of .* is not a JSON object with a metric"):
            records.read(tmp_path / "c.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        records.read(tmp_path / "missing.jsonl")


def test_a_key_identifies_what_was_measured_and_survives_a_file():
    record = {
        "metric": "fid5k",
        "value": 1.0,
        "seconds": 2.0,
        "protocol": {"num_fake": 5000, "lowest": 1},
        "fake": {"kind": "network", "num": 5000, "seed": 0, "precision": "float32"},
        "real": {"fingerprint": "a", "num": 80},
        "classifiers": (),
    }
    key = records.comparable_key(record)
    assert len(key) == 16
    assert records.comparable_key(json.loads(json.dumps(record))) == key
    for same in ({"value": 3.0}, {"seconds": 1}, {"threads": 2}):
        assert records.comparable_key(record | same) == key
    for other in (
        {"metric": "fid6k"},
        {"protocol": {"num_fake": 5000, "lowest": 2}},
        {"fake": record["fake"] | {"seed": 1}},
        {"fake": record["fake"] | {"precision": "bfloat16"}},
        {"tf32": True},
        {"real": record["real"] | {"fingerprint": "b"}},
        {"real": None},
    ):
        assert records.comparable_key(record | other) != key


def test_a_record_after_a_line_that_was_cut_off_is_whole(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"metric": "kid1')
    records.append(tmp_path / "a.jsonl", RECORD)
    cut, whole = (tmp_path / "a.jsonl").read_text().splitlines()
    assert cut == '{"metric": "kid1'
    assert json.loads(whole) == RECORD
