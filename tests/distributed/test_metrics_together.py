"""Metrics while training are computed by all processes, which fail and stop together."""

import pytest

import processes
from distributed.evaluator import evaluate_as_rank
from stylegan.training.log import read_metrics


def run(run_dir, data, case, *, num=2):
    """Return the records, the signal that each rank received, and the output."""
    output = processes.run(evaluate_as_rank, run_dir, data, case, folder=run_dir, num=num)
    summaries = [(run_dir / str(rank)).read_text() for rank in range(num)]
    assert all(summary.startswith(f"met {num - 1}") for summary in summaries)
    return read_metrics(run_dir), [summary.rpartition(" ")[2] for summary in summaries], output


def test_values_are_those_of_one_process(tmp_path, data):
    (alone,), _, _ = run(tmp_path / "1", data, "real", num=1)
    (together,), _, _ = run(tmp_path / "2", data, "real")
    assert together["processes"] == 2
    assert together["metric"] == alone["metric"] == "swd24"
    assert together["values"] == pytest.approx(alone["values"], rel=1e-6)


@pytest.mark.parametrize("case", ["failure-0", "failure-1", "failure_of_leaders_own-0"])
def test_a_metric_that_fails_in_one_process_fails_in_all_and_the_next_has_its_turn(
    tmp_path, data, case
):
    found, _, log = run(tmp_path / "run", data, case)
    assert [(each["metric"], each["value"]) for each in found] == [("first", 3.0), ("third", 3.0)]
    reason = "singular matrix" if "own" in case else "out of memory"
    assert f"metrics at 100 images: second failed ({reason})\nTraceback" in log
    assert f"RuntimeError: {reason}" in log
    assert f"second failed (rank {case[-1]} failed)" in log


def test_a_signal_while_another_process_fails_stops_what_comes_next(tmp_path, data):
    found, received, log = run(tmp_path / "run", data, "signal_and_failure-1")
    assert [each["metric"] for each in found] == ["first"]
    assert received == ["None", "SIGTERM"]
    assert "RuntimeError: out of memory" in log
    assert "interrupted by the signal" in log


def test_a_signal_outweighs_a_failure_at_the_same_time(tmp_path, data):
    found, received, log = run(tmp_path / "run", data, "failure_and_signal-0")
    assert [each["metric"] for each in found] == ["first"]
    assert received == ["None", "SIGTERM"]
    assert "failed" not in log
    assert "interrupted by the signal" in log


@pytest.mark.parametrize("case", ["signal-0", "signal-1", "signal_while_waiting-0"])
def test_a_signal_to_one_process_stops_the_evaluation_in_all(tmp_path, data, case):
    found, received, log = run(tmp_path / "run", data, case)
    assert [each["metric"] for each in found] == ["first"]
    expected = ["None", "None"]
    expected[int(case[-1])] = "SIGTERM"
    assert received == expected
    assert "interrupted by the signal" in log
