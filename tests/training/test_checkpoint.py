import logging

import pytest
import torch

from stylegan.errors import CheckpointError
from stylegan.training.checkpoint import (
    RunRecord,
    check_run_folder,
    list_checkpoints,
    load_newest_checkpoint,
    save_checkpoint,
    write_run_record,
)
from stylegan.training.state import TrainState
from stylegan.training.step import train_step


def tensors_of(thing, path=""):
    """Every tensor that hangs on an object, by the way to it."""
    if isinstance(thing, torch.Tensor):
        yield path, thing
    elif isinstance(thing, torch.nn.Module):
        yield from ((f"{path}.{key}", value) for key, value in thing.state_dict().items())
    elif isinstance(thing, torch.optim.Optimizer):
        yield from tensors_of(dict(enumerate(thing.state.values())), path)
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from tensors_of(value, f"{path}.{key}")
    elif hasattr(thing, "__dict__"):
        yield from tensors_of(vars(thing), path)


def test_a_loaded_state_has_every_tensor_and_number_of_the_saved_one(run_config, tmp_path):
    state = TrainState(run_config, torch.device("cpu"))
    for _ in range(3):
        train_step(state, torch.randn(8, 3, 16, 16))
    save_checkpoint(tmp_path, state.state_dict(), nimg=state.nimg, keep=2)
    other = TrainState(run_config.with_overrides("seed=1"), torch.device("cpu"))
    train_step(other, torch.randn(8, 3, 16, 16))
    other.load_state_dict(load_newest_checkpoint(tmp_path))
    saved, loaded = dict(tensors_of(state)), dict(tensors_of(other))
    assert saved.keys() == loaded.keys()
    assert len(saved) > 200
    for path, value in saved.items():
        assert value.equal(loaded[path]), path
    numbers = {key: value for key, value in vars(state).items() if isinstance(value, int)}
    assert numbers == {key: vars(other)[key] for key in numbers}
    assert state.averages.report() == other.averages.report()


def test_only_the_newest_stay(tmp_path):
    for nimg in (100, 200, 300, 1000):
        save_checkpoint(tmp_path, {"nimg": nimg}, nimg=nimg, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000000300.pt", "000001000.pt"]
    assert load_newest_checkpoint(tmp_path) == {"nimg": 1000}


@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage", "flip"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, damage, caplog):
    save_checkpoint(tmp_path, {"x": torch.arange(1000)}, nimg=100, keep=2)
    path = save_checkpoint(tmp_path, {"x": torch.zeros(1000)}, nimg=200, keep=2)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "truncate": content[:middle],
            "empty": b"",
            "garbage": b"not a checkpoint",
            "flip": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_newest_checkpoint(tmp_path)["x"], torch.arange(1000))
    assert "000000200.pt: skipped" in caplog.text
    # newer than what the run writes next, it must not be kept in its place
    save_checkpoint(tmp_path, {"x": torch.ones(1)}, nimg=150, keep=1)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["000000150.pt", "000000200.pt.damaged"]
    assert torch.equal(load_newest_checkpoint(tmp_path)["x"], torch.ones(1))


def test_a_half_written_file_is_removed_with_a_warning(tmp_path, caplog):
    save_checkpoint(tmp_path, {"nimg": 100}, nimg=100, keep=2)
    leftover = tmp_path / "checkpoints" / "000000200.pt.tmp"
    leftover.write_bytes(b"PK half")
    assert load_newest_checkpoint(tmp_path) == {"nimg": 100}
    assert "it was incomplete when the run ended" in caplog.text
    assert not leftover.exists()


def test_no_checkpoint_is_none_and_none_readable_is_an_error(tmp_path):
    assert load_newest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, {"nimg": 100}, nimg=100, keep=2).write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the"):
        load_newest_checkpoint(tmp_path)


def test_a_run_goes_on_with_other_lengths_but_not_with_other_options(run_config, tmp_path):
    run = tmp_path / "run"
    write_run_record(run, RunRecord(config=run_config, fingerprint="a"))
    check_run_folder(run, run_config.with_overrides("output.total_kimg=9"), fingerprint="a")
    with pytest.raises(CheckpointError, match=r"loss.gamma: 1.0 -> 2.0; seed: 0 -> 3"):
        check_run_folder(run, run_config.with_overrides("loss.gamma=2", "seed=3"), fingerprint="a")
    with pytest.raises(CheckpointError, match="other images"):
        check_run_folder(run, run_config, fingerprint="b")


def test_folders_of_something_else_are_refused(run_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="is not empty, and is not the folder of a run"):
        check_run_folder(tmp_path, run_config, fingerprint="a")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_same_images_may_lie_elsewhere(run_config, tmp_path):
    write_run_record(tmp_path / "run", RunRecord(config=run_config, fingerprint="a"))
    check_run_folder(tmp_path / "run", run_config.with_overrides("data.path=b"), fingerprint="a")


def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(data, file):
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(CheckpointError, match=r"000000100\.pt cannot be written"):
        save_checkpoint(tmp_path, {}, nimg=100, keep=1)
    assert list((tmp_path / "checkpoints").iterdir()) == []
