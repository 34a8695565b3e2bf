import json
import threading

import pytest
import torch

import stylegan
from stylegan.cli import generate
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator
from stylegan.training.best import best_folder, keep_best

METRIC = "fid2k_full:efficientnet-lite0"


@pytest.fixture
def run(tmp_path, generator_config):
    """A run folder with four snapshots."""
    for nimg in (100, 200, 300, 400):
        generator = Generator(generator_config)
        io.save(Networks(generator_ema=generator), tmp_path / "snapshots" / f"{nimg:09d}")
    return tmp_path


def evaluated(run, nimg, value, *, metric=METRIC, lower_is_better=True, append=True, **more):
    """Append a record to metrics.jsonl and keep the best."""
    record = {"metric": metric, "value": value, "lower_is_better": lower_is_better, "nimg": nimg}
    record |= more
    if append:
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    return keep_best(run, record, run / "snapshots" / f"{nimg:09d}")


def kept(run, metric=METRIC):
    """Return value and nimg of the best, once its files are those of the snapshot."""
    folder = best_folder(run, metric)
    description = json.loads((folder / "best.json").read_text())
    assert description["metric"] == metric
    snapshot = run / "snapshots" / f"{description['nimg']:09d}"
    if snapshot.exists():
        for name in ("model.safetensors", "model.json"):
            assert (folder / name).read_bytes() == (snapshot / name).read_bytes()
    return description["value"], description["nimg"]


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_the_best_is_the_least_value_or_the_greatest_and_of_equal_ones_the_earliest(
    run, lower_is_better
):
    sign = 1 if lower_is_better else -1
    seen = []
    for nimg, value in ((100, 5.0), (200, 3.0), (300, 3.0), (400, 4.0)):
        is_best = evaluated(run, nimg, sign * value, lower_is_better=lower_is_better)
        seen.append((is_best, *kept(run)))
    three = sign * 3.0
    assert seen == [
        (True, sign * 5.0, 100), (True, three, 200), (False, three, 200), (False, three, 200)
    ]  # fmt: skip


def test_each_metric_has_a_folder_of_its_own(run):
    evaluated(run, 100, 1.0)
    evaluated(run, 200, 2.0)
    evaluated(run, 200, 0.9, metric="pr2k3_precision:efficientnet-lite0", lower_is_better=False)
    assert kept(run) == (1.0, 100)
    assert kept(run, "pr2k3_precision:efficientnet-lite0") == (0.9, 200)
    assert sorted(path.name for path in (run / "best").iterdir()) == [
        ".lock", "fid2k_full-efficientnet-lite0", "pr2k3_precision-efficientnet-lite0"
    ]  # fmt: skip


def test_only_values_of_the_same_thing_compete(run):
    assert evaluated(run, 100, 1.0)
    assert evaluated(run, 200, 3.0, comparable="a")
    assert evaluated(run, 300, 2.0, comparable="a")
    assert kept(run) == (2.0, 300)
    assert evaluated(run, 300, 9.0, comparable="b")
    assert not evaluated(run, 400, 2.5, comparable="a")
    assert kept(run) == (2.0, 300)
    reported = json.loads((best_folder(run, METRIC) / "best.json").read_text())
    assert reported["comparable"] == "a"
    assert not evaluated(run, 400, 1.5)  # one without a key has a group of its own
    assert kept(run) == (1.0, 100)


def test_the_best_loads_and_generates_like_any_native_folder(run):
    evaluated(run, 200, 1.0)
    folder = best_folder(run, METRIC)
    loaded, expected = stylegan.load(folder), stylegan.load(run / "snapshots" / "000000200")
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key
    line = ["images", "--network", str(folder), "--seeds", "0", "--out", str(run / "out")]
    assert generate.main(line) == 0
    assert len(list((run / "out").glob("*.png"))) == 1


def test_the_log_decides_whoever_wrote_it(run):
    evaluated(run, 100, 5.0)
    other = {"metric": METRIC, "value": 1.0, "lower_is_better": True, "nimg": 300}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(other) + "\n")
    assert not evaluated(run, 200, 2.0)
    assert kept(run) == (1.0, 300)


def test_a_record_counts_before_it_is_in_the_log(run):
    assert evaluated(run, 200, 2.0, append=False)
    assert kept(run) == (2.0, 200)


def test_the_copy_stays_where_the_snapshot_is_gone(run):
    evaluated(run, 100, 1.0)
    for path in (run / "snapshots" / "000000100").iterdir():
        path.unlink()
    (run / "snapshots" / "000000100").rmdir()
    assert not evaluated(run, 200, 2.0)
    assert kept(run) == (1.0, 100)


def test_snapshots_that_are_gone_without_a_copy_do_not_count(run):
    with (run / "metrics.jsonl").open("a") as file:
        gone = {"metric": METRIC, "value": 0.5, "lower_is_better": True, "nimg": 150}
        file.write(json.dumps(gone) + "\n")
    assert evaluated(run, 200, 2.0)
    assert kept(run) == (2.0, 200)


def test_what_a_cut_log_does_not_know_is_replaced(run):
    evaluated(run, 400, 1.0)
    (run / "metrics.jsonl").unlink()  # as of a run that goes on from before 400
    assert evaluated(run, 200, 2.0)
    assert kept(run) == (2.0, 200)


def test_a_damaged_copy_is_made_again(run):
    evaluated(run, 100, 1.0)
    (best_folder(run, METRIC) / "model.json").write_text("{")
    assert not evaluated(run, 200, 2.0)
    assert kept(run) == (1.0, 100)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_never_the_best(run, value):
    assert not evaluated(run, 100, value)
    assert not best_folder(run, METRIC).exists()
    assert evaluated(run, 200, 2.0)
    assert not evaluated(run, 300, -value)
    assert kept(run) == (2.0, 200)


def test_a_copy_that_fails_leaves_the_old_one(run, monkeypatch):
    evaluated(run, 100, 2.0)

    def fail(source, target):
        target.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stylegan.training.best.shutil.copytree", fail)
    with pytest.raises(OSError, match="No space left"):
        evaluated(run, 200, 1.0)
    assert kept(run) == (2.0, 100)
    assert not list((run / "best").glob(".*.tmp"))


def test_many_at_once_end_with_the_best(run):
    values = {100: 4.0, 200: 2.0, 300: 3.0, 400: 1.0}
    for nimg, value in values.items():  # all in the log before any is kept
        record = {"metric": METRIC, "value": value, "lower_is_better": True, "nimg": nimg}
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    threads = [
        threading.Thread(target=evaluated, args=(run, nimg, value), kwargs={"append": False})
        for nimg, value in values.items()
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(run) == (1.0, 400)
    assert not list((run / "best").glob(".*.tmp"))


@pytest.mark.parametrize("metric", ["", "..", "a/b", "../../x", "a\\b"])
def test_a_metric_is_not_the_name_of_another_place(tmp_path, metric):
    with pytest.raises(ValueError, match="must be usable as a folder's name"):
        best_folder(tmp_path, metric)
