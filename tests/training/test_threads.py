import pytest
import torch

import stylegan
from stylegan.training.checkpoint import RunRecord, write_run_record
from stylegan.training.configure import resolve
from stylegan.training.loop import train
from stylegan.training.presets import find_preset
from stylegan.training.threads import default_threads, using_threads


@pytest.mark.parametrize(
    ("cores", "environment", "expected"),
    [
        (1, {}, 1),
        (2, {}, 1),
        (16, {}, 15),
        (16, {"LOCAL_WORLD_SIZE": "4"}, 3),
        (16, {"OMP_NUM_THREADS": "5"}, 5),
    ],
)
def test_one_core_is_left_free_unless_the_environment_says_otherwise(
    monkeypatch, cores, environment, expected
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_threads()[0] == expected


def test_the_number_of_threads_holds_within_the_block():
    before = torch.get_num_threads()
    with using_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        with using_threads(None):
            assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


def test_a_run_computes_with_its_threads(run_config, tmp_path):
    seen = []
    config = run_config.with_overrides("runtime.threads=3", "output.total_kimg=0.008")
    before = torch.get_num_threads()
    train(config, tmp_path / "run", observe=lambda _: seen.append(torch.get_num_threads()))
    assert seen == [3]
    assert torch.get_num_threads() == before


def test_the_default_is_recorded_with_the_run(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    config, reasons = resolve(find_preset("stylegan2-small").run, resolution=16)
    assert config.runtime.threads == 2
    assert reasons["runtime.threads"] == "as OMP_NUM_THREADS says"


def test_a_resumed_run_keeps_its_threads_unless_there_are_fewer(
    monkeypatch, run_config, tmp_path, image_folder
):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    started = find_preset("stylegan2-small").start
    options = {"data": str(image_folder), "threads": 3}
    config, _ = resolve(started.with_options(options), resolution=16)
    write_run_record(tmp_path, RunRecord(config=config, fingerprint=""))

    def threads(**options):
        plan = stylegan.train(
            image_folder, tmp_path, preset="stylegan2-small", dry_run=True, device="cpu", **options
        ).plan
        return plan.config.runtime.threads

    assert threads() == 3  # by default it would be 4
    assert threads(threads=1) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads() == 2
