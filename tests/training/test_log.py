import json

import pytest

from stylegan.training.log import RunLog, read_log, read_metrics


def record(nimg, value=1.0):
    return {"metric": "swd2k", "value": value, "lower_is_better": True, "seconds": 2, "nimg": nimg}


def open_log(run, nimg):
    log = RunLog(run, nimg=nimg)
    log.close()
    return log


def test_without_metrics_there_is_no_file_of_them(tmp_path):
    open_log(tmp_path, 0)
    assert read_metrics(tmp_path) == []
    assert not (tmp_path / "metrics.jsonl").exists()


def test_metrics_beyond_the_position_are_dropped_and_other_lines_stay(tmp_path):
    log = open_log(tmp_path, 0)
    log.write_metrics([record(8), record(16)])
    mine = '{"metric": "fid2k", "value": 3, "network": "of another place"}'
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(mine + "\n")
    log.write_metrics([record(24)])
    open_log(tmp_path, 16)
    assert read_metrics(tmp_path) == [record(8), record(16)]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[2] == mine


def test_a_file_of_which_nothing_is_dropped_is_left_alone(tmp_path):
    log = open_log(tmp_path, 0)
    log.write_metrics([record(8)])
    before = (tmp_path / "metrics.jsonl").stat()
    open_log(tmp_path, 8)
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_line_that_is_just_being_written_is_passed_over(tmp_path):
    log = open_log(tmp_path, 0)
    log.write_metrics([record(8)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record(16))[:20])
    assert read_metrics(tmp_path) == [record(8)]


def test_numbers_that_json_does_not_have_are_refused(tmp_path):
    log = open_log(tmp_path, 0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write_metrics([record(8, float("nan"))])
    assert read_metrics(tmp_path) == []


def test_a_log_is_read_up_to_a_damaged_line(tmp_path, caplog):
    (tmp_path / "log.jsonl").write_text('{"nimg": 8}\n{"nimg": 16}\n{"ni\n{"nimg": 24}\n')
    assert [line["nimg"] for line in read_log(tmp_path)] == [8, 16]
    assert "read up to line 3, which is damaged" in caplog.text
