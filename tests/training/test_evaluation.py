import json
import logging
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from stylegan.errors import DataError, Stopped
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator
from stylegan.training.evaluation import Evaluation, Evaluator
from stylegan.training.log import RunLog, read_log, read_metrics

SIZES = {"resolution": 16, "img_resolution": 16}


def result(value=1.0, metric="swd2k", **more):
    return {"metric": metric, "value": value, "lower_is_better": True, "seconds": 3.0} | more


class Watch:
    """A clock that only the test moves."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def watch(monkeypatch):
    watch = Watch()
    monkeypatch.setattr(
        "stylegan.training.evaluation.time", SimpleNamespace(monotonic=watch.monotonic)
    )
    return watch


@pytest.fixture
def make(tmp_path):
    """Make an evaluation, in a run that has a snapshot at 100 images."""
    logs = []

    def make(evaluate, *, names=("swd2k",), share=0.05, deadline_s=None):
        logs.append(RunLog(tmp_path, nimg=0))

        def measure(generator, nimg, names):
            return evaluate(generator, nimg)

        return Evaluation(
            Evaluator(names=names, measure=measure),
            fraction=share,
            run_dir=tmp_path,
            log=logs[-1],
            deadline_s=deadline_s,
        )

    yield make
    for log in logs:
        log.close()


@pytest.fixture
def generator(generator_config, tmp_path):
    generator = Generator(generator_config).eval().requires_grad_(False)
    io.save(Networks(generator_ema=generator), tmp_path / "snapshots" / "000000100")
    return generator


def run(evaluation, generator, tmp_path, nimg=100):
    snapshot = tmp_path / "snapshots" / f"{nimg:09d}"
    evaluation.run(generator, nimg, evaluation.missing(nimg), snapshot=snapshot)


def test_evaluation_takes_its_share_and_one_evaluation_more_at_most(
    watch, make, generator, tmp_path
):
    def evaluate(generator, nimg):
        watch.now_s += 10
        return [result()]

    evaluation = make(evaluate, share=0.05)
    watch.now_s += 1
    evaluated = []
    for nimg in range(100, 1100, 100):  # a snapshot every 60 seconds
        if evaluation.is_due(nimg, **SIZES, is_last=False):
            run(evaluation, generator, tmp_path, nimg)
            evaluated.append(nimg)
        assert 0.05 * (watch.now_s - 1000) > 10 * (len(evaluated) - 1)
        watch.now_s += 60
    assert evaluated == [100, 500, 800]  # after 200 and 400 seconds
    assert evaluation.is_due(1100, **SIZES, is_last=True)


def test_a_share_of_nothing_leaves_the_first_and_the_last(watch, make, generator, tmp_path):
    def evaluate(generator, nimg):
        watch.now_s += 1
        return [result()]

    evaluation = make(evaluate, share=0)
    assert evaluation.is_due(100, **SIZES, is_last=False)
    run(evaluation, generator, tmp_path)
    watch.now_s += 1e6
    assert not evaluation.is_due(200, **SIZES, is_last=False)
    assert evaluation.is_due(300, **SIZES, is_last=True)


def test_failures_take_their_share_too(watch, make, generator, tmp_path):
    def evaluate(generator, nimg):
        watch.now_s += 10
        raise DataError("a", expected="b", fix="c")

    evaluation = make(evaluate)
    run(evaluation, generator, tmp_path)
    watch.now_s += 100
    assert not evaluation.is_due(200, **SIZES, is_last=False)


def test_what_is_passed_over_is_reported(watch, make, generator, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="stylegan")

    def evaluate(generator, nimg):
        watch.now_s += 10
        return [result()]

    evaluation = make(evaluate)
    watch.now_s += 10
    run(evaluation, generator, tmp_path)
    assert not evaluation.is_due(200, **SIZES, is_last=False)
    assert (
        "no metrics at 200 images: they have taken 50 % of the time, more than 5 %" in caplog.text
    )


def test_smaller_images_are_passed_over_and_reported_once(make, caplog):
    caplog.set_level(logging.INFO, logger="stylegan")
    evaluation = make(lambda generator, nimg: [])
    for is_last in (False, False, True):
        assert not evaluation.is_due(100, resolution=8, img_resolution=16, is_last=is_last)
    assert caplog.text.count("no metrics before images have their full resolution, 16") == 1
    assert evaluation.is_due(100, resolution=16, img_resolution=16, is_last=False)


def test_what_would_end_after_the_deadline_is_not_begun(watch, make, generator, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="stylegan")

    def evaluate(generator, nimg):
        watch.now_s += 10
        return [result()]

    evaluation = make(evaluate, share=1, deadline_s=1100)
    watch.now_s = 1080
    run(evaluation, generator, tmp_path)
    assert evaluation.is_due(200, **SIZES, is_last=False)
    watch.now_s = 1091
    assert not evaluation.is_due(300, **SIZES, is_last=True)
    assert "no metrics at 300 images: they would exceed the time limit" in caplog.text


def test_results_go_into_both_logs_and_events(watch, make, generator, tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    caplog.set_level(logging.INFO, logger="stylegan")
    name = "fid2k_full:efficientnet-lite0"

    def evaluate(generator, nimg):
        watch.now_s += 4
        return [result(7.25, name, seed=3), result(0.5, "swd2k")]

    evaluation = make(evaluate, names=[name, "swd2k"])
    watch.now_s += 12
    run(evaluation, generator, tmp_path)
    assert read_log(tmp_path) == [
        {
            "kind": "metrics",
            "nimg": 100,
            "metrics": {name: 7.25, "swd2k": 0.5},
            "time": {"metrics_seconds": 4.0, "metrics_share": 0.25},
        }
    ]
    place = {"nimg": 100, "snapshot": "snapshots/000000100"}
    assert read_metrics(tmp_path) == [
        result(7.25, name, seed=3) | place, result(0.5, "swd2k") | place
    ]  # fmt: skip
    assert evaluation.missing(100) == []
    assert evaluation.missing(200) == [name, "swd2k"]
    best = tmp_path / "best" / "fid2k_full-efficientnet-lite0" / "best.json"
    assert json.loads(best.read_text()) == {
        "metric": name,
        "comparable": None,
        "value": 7.25,
        "nimg": 100,
    }
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    shown = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert shown == {
        f"metrics/{name}": 7.25,
        "metrics/swd2k": 0.5,
        "time/metrics_seconds": 4.0,
        "time/metrics_share": 0.25,
    }
    assert f"{name} = 7.25 at 100 images, the best so far, in 3 s" in caplog.text


@pytest.mark.parametrize(
    ("failure", "reported"),
    [
        (DataError("a.png: bad", expected="an image", fix="remove it"), "a.png: bad; expected an"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (torch.linalg.LinAlgError("no\nconvergence"), "no convergence"),
        (torch.OutOfMemoryError("out of memory"), "out of memory"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("no\nmatrix"), "no matrix"),
        (ZeroDivisionError("division by zero"), "division by zero"),
        (TypeError("wrong"), "wrong"),
    ],
)
def test_a_failure_leaves_no_record_and_an_unexpected_one_is_logged_with_its_traceback(
    make, generator, tmp_path, caplog, failure, reported
):
    def evaluate(generator, nimg):
        raise failure

    evaluation = make(evaluate)
    run(evaluation, generator, tmp_path)
    (entry,) = [entry for entry in caplog.records if entry.levelname == "WARNING"]
    line = entry.getMessage()
    assert line.startswith("metrics at 100 images: swd2k failed (")
    is_expected = isinstance(failure, DataError | OSError)
    assert (entry.exc_info is None) == is_expected
    assert ("raise failure" in caplog.text) != is_expected
    assert reported in line
    assert "\n" not in line
    assert read_log(tmp_path) == read_metrics(tmp_path) == []
    assert evaluation.missing(100) == ["swd2k"]


class Kill(BaseException):
    """As a machine that goes down."""


def by_name(evaluate, names, tmp_path):
    """An evaluation whose metrics are computed one by one, and what was asked for."""
    asked = []

    def measure(generator, nimg, names):
        asked.append(list(names))
        for name in names:
            yield evaluate(name)

    log = RunLog(tmp_path, nimg=0)
    evaluator = Evaluator(names=names, measure=measure)
    return Evaluation(evaluator, fraction=1, run_dir=tmp_path, log=log), asked


def test_a_result_is_kept_as_it_comes(generator, tmp_path):
    def evaluate(name):
        if name == "b":
            assert [each["metric"] for each in read_metrics(tmp_path)] == ["a"]
            assert (tmp_path / "best" / "a" / "best.json").exists()
            raise Kill
        return result(metric=name)

    evaluation, _ = by_name(evaluate, ["a", "b"], tmp_path)
    with pytest.raises(Kill):
        run(evaluation, generator, tmp_path)
    assert [each["metric"] for each in read_metrics(tmp_path)] == ["a"]


def test_a_metric_that_fails_loses_only_itself(generator, tmp_path, caplog):
    def evaluate(name):
        if name == "b":
            raise ValueError("bad")
        return result(metric=name)

    evaluation, asked = by_name(evaluate, ["a", "b", "c"], tmp_path)
    run(evaluation, generator, tmp_path)
    assert asked == [["a", "b", "c"], ["c"]]
    assert [each["metric"] for each in read_metrics(tmp_path)] == ["a", "c"]
    assert [each["metrics"] for each in read_log(tmp_path)] == [{"a": 1.0, "c": 1.0}]
    assert caplog.text.count("metrics at 100 images: b failed (bad)") == 1
    run(evaluation, generator, tmp_path)
    assert asked[2:] == [["b"]]


def test_a_signal_leaves_what_came_before_it(generator, tmp_path):
    interrupted = []

    def evaluate(name):
        if name == "b":
            raise Stopped
        return result(metric=name)

    @contextmanager
    def interruptible():
        interrupted.append([each["metric"] for each in read_metrics(tmp_path)])
        yield
        interrupted.append([each["metric"] for each in read_metrics(tmp_path)])

    evaluation, _ = by_name(evaluate, ["a", "b", "c"], tmp_path)
    snapshot = tmp_path / "snapshots" / "000000100"
    evaluation.run(generator, 100, ["a", "b", "c"], snapshot=snapshot, interruptible=interruptible)
    assert [each["metric"] for each in read_metrics(tmp_path)] == ["a"]
    assert [each["metrics"] for each in read_log(tmp_path)] == [{"a": 1.0}]
    assert interrupted == [[], [], ["a"]]  # nothing is written where a signal may raise


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_reported_and_left_out(
    make, generator, tmp_path, caplog, value
):
    evaluation = make(
        lambda generator, nimg: [result(value, "fid2k"), result(2.0)], names=["fid2k", "swd2k"]
    )
    run(evaluation, generator, tmp_path)
    assert f"metrics at 100 images: fid2k is {value}, not recorded" in caplog.text
    assert [record["metrics"] for record in read_log(tmp_path)] == [{"swd2k": 2.0}]
    assert [record["metric"] for record in read_metrics(tmp_path)] == ["swd2k"]
    assert not (tmp_path / "best" / "fid2k").exists()


def test_where_nothing_is_finite_nothing_is_written(make, generator, tmp_path):
    run(make(lambda generator, nimg: [result(float("nan"))]), generator, tmp_path)
    assert read_log(tmp_path) == read_metrics(tmp_path) == []


def test_a_best_that_cannot_be_written_is_reported(make, generator, tmp_path, caplog):
    (tmp_path / "best").write_text("no folder")
    run(make(lambda generator, nimg: [result()]), generator, tmp_path)
    assert "swd2k cannot be written (" in caplog.text
    assert len(read_metrics(tmp_path)) == 1


def test_a_signal_gives_it_up(make, generator, tmp_path, caplog):
    def evaluate(generator, nimg):
        raise Stopped

    run(make(evaluate), generator, tmp_path)
    assert "metrics at 100 images: interrupted by the signal" in caplog.text
    assert read_metrics(tmp_path) == []


def test_random_streams_and_gradients_are_as_before(make, generator, tmp_path):
    seen = []

    def evaluate(generator, nimg):
        seen.append(torch.is_grad_enabled())
        torch.manual_seed(5)
        torch.randn(3)
        return [result()]

    before = torch.get_rng_state()
    run(make(evaluate), generator, tmp_path)
    assert seen == [False]
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("share", "reported"), [(0.5, False), (0.05, True)])
def test_taking_more_than_the_share_is_reported_in_the_end(
    watch, make, generator, tmp_path, caplog, share, reported
):
    def evaluate(generator, nimg):
        watch.now_s += 10
        return [result()]

    evaluation = make(evaluate, share=share)
    watch.now_s += 30
    run(evaluation, generator, tmp_path)
    evaluation.finish()
    assert ("metrics took 25 % of the time, which is more than 5 %" in caplog.text) == reported


def test_only_the_metrics_that_all_processes_agreed_on_are_computed(generator, tmp_path):
    evaluation, _ = by_name(lambda name: result(metric=name), ["a", "b"], tmp_path)
    evaluation.run(generator, 100, ["b"], snapshot=tmp_path / "snapshots" / "000000100")
    assert [each["metric"] for each in read_metrics(tmp_path)] == ["b"]
