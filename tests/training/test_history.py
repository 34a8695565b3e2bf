import shutil

import pytest

import stylegan
from stylegan.models import io
from stylegan.training.history import seconds_of, stages_of


@pytest.fixture(scope="module")
def three_runs(run_config, tmp_path_factory):
    """Three short runs, each from the networks of the one before, whose folder is then removed."""
    folder = tmp_path_factory.mktemp("three")
    short = run_config.with_options({"kimg": 0.016, "output.samples": 1})
    seconds = []
    for name, kimg, before in (("a", 0.016, None), ("b", 0.024, "a"), ("c", 0.016, "b")):
        config = short.with_options({"kimg": kimg})
        run = folder / name
        stylegan.train(
            config.data.path,
            run,
            config=config,
            init_from=None if before is None else str(folder / before),
            metrics="none",
        )
        seconds.append(seconds_of(run, nimg=None))
        if before is not None:
            shutil.rmtree(folder / before)
    return folder / "c", seconds


def test_a_run_from_networks_records_the_runs_before_it(three_runs):
    run, seconds = three_runs
    stages = stages_of(run)
    assert [stage["nimg"] for stage in stages] == [16, 24, 16]
    assert [stage["seconds"] for stage in stages] == seconds
    assert all(0 < each < 60 for each in seconds)
    assert [stage["num_images"] for stage in stages] == [12, 12, 12]
    assert all("CPU" in stage["machine"] for stage in stages)
    assert stages[0]["run"]["init_from"] is None
    assert stages[2]["run"]["init_from"].endswith("b")


def test_a_copy_of_a_snapshot_still_has_the_runs_before_it(three_runs, tmp_path):
    run, seconds = three_runs
    shutil.copytree(run / "snapshots" / "000000016", tmp_path / "copy")
    stages = stages_of(tmp_path / "copy")
    assert [stage["nimg"] for stage in stages] == [16, 24, 16]
    assert [stage["seconds"] for stage in stages] == [*seconds[:2], None]


def test_a_resumed_run_keeps_its_history(three_runs, tmp_path):
    run, _ = three_runs
    copy = shutil.copytree(run, tmp_path / "copy")
    stylegan.train(out=copy, kimg=0.032)
    history = io.read_metadata(copy / "snapshots" / "000000032")["history"]
    assert [stage["nimg"] for stage in history] == [16, 24]


def test_the_seconds_of_a_snapshot_are_those_up_to_it(finished_run):
    half = finished_run / "snapshots" / "000000080"
    assert 0 < stages_of(half)[0]["seconds"] < stages_of(finished_run)[0]["seconds"]


def test_a_run_that_recorded_no_history_has_that_of_the_networks_it_names(
    run_config, finished_run, tmp_path
):
    for source, nimg in ((finished_run, 160), (tmp_path / "gone", None)):
        config = run_config.with_options({"init_from": str(source)})
        metadata = {"nimg": 8, "run": config.to_json()}
        io.save(
            io.load(finished_run / "snapshots" / "000000160"), tmp_path / "n", metadata=metadata
        )
        before, last = stages_of(tmp_path / "n")
        assert (before["source"], before["nimg"], last["nimg"]) == (str(source), nimg, 8)


def test_a_network_without_metadata_has_a_stage_of_which_nothing_is_known(finished_run, tmp_path):
    io.save(io.load(finished_run / "snapshots" / "000000160"), tmp_path / "n")
    (stage,) = stages_of(tmp_path / "n")
    assert stage.pop("source") == str(tmp_path / "n")
    assert {*stage.values()} == {None}
