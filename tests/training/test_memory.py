import json

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.training import step
from stylegan.training.loop import train
from stylegan.training.memory import FILE, fit_to_memory, note_overflow
from stylegan.training.state import TrainState

CPU = torch.device("cpu")


@pytest.fixture
def room(monkeypatch):
    """A device that has room for so many images at once."""

    real = step.discriminator_loss

    def give(num):
        def loss(discriminator, reals, *args, **options):
            if len(reals) > num:
                raise torch.OutOfMemoryError("out of memory")
            return real(discriminator, reals, *args, **options)

        monkeypatch.setattr("stylegan.training.step.discriminator_loss", loss)

    return give


@pytest.fixture
def state(run_config):
    return TrainState(run_config.with_overrides("batch=32"), CPU)


@pytest.mark.parametrize(("room_for", "expected"), [(100, 32), (31, 16), (5, 4)])
def test_what_fits_is_found_and_nothing_has_changed(room, state, tmp_path, room_for, expected):
    before = {
        name: value.clone()
        for _, network in state.networks.items()
        for name, value in network.state_dict().items()
    }
    room(room_for)
    fit_to_memory(state, tmp_path)
    assert state.batch_gpu == expected
    assert (state.nimg, state.iteration, state.optimizer_g.state_dict()["state"]) == (0, 0, {})
    after = {
        name: value
        for _, network in state.networks.items()
        for name, value in network.state_dict().items()
    }
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_was_found_is_remembered(room, state, tmp_path, run_config):
    room(16)
    fit_to_memory(state, tmp_path)
    assert list(json.loads((tmp_path / FILE).read_text()).values()) == [16]
    room(100)  # it would fit now, but is not tried
    again = TrainState(state.config, CPU)
    fit_to_memory(again, tmp_path)
    assert again.batch_gpu == 16
    # of another stage nothing is known
    other = TrainState(run_config.with_overrides("batch=64"), CPU)
    fit_to_memory(other, tmp_path)
    assert other.batch_gpu == 64


def test_a_choice_is_not_exceeded(room, run_config, tmp_path):
    room(100)
    state = TrainState(run_config.with_overrides("batch=32", "runtime.batch_gpu=8"), CPU)
    fit_to_memory(state, tmp_path)
    assert state.batch_gpu == 8
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"cpu": "many"}'])
def test_a_damaged_memory_is_tried_again(room, state, tmp_path, content):
    (tmp_path / FILE).write_text(content)
    room(8)
    fit_to_memory(state, tmp_path)
    assert state.batch_gpu == 8


def test_a_device_without_room_for_a_group_is_reported(room, state, tmp_path):
    room(3)
    with pytest.raises(ConfigError, match="not enough memory for 4 images of 16x16 at once"):
        fit_to_memory(state, tmp_path)


def test_where_memory_runs_out_later_the_next_start_takes_less(run_config, tmp_path, monkeypatch):
    def fail(state, *args, **options):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("stylegan.training.loop.train_step", fail)
    with pytest.raises(torch.OutOfMemoryError):
        train(run_config, tmp_path / "run")
    state = TrainState(run_config, CPU)
    fit_to_memory(state, tmp_path / "run")
    assert state.batch_gpu == 4  # of 8


def test_a_note_that_cannot_be_written_hides_no_lack_of_memory(state, tmp_path, monkeypatch):
    note_overflow(state, tmp_path)
    assert list(json.loads((tmp_path / FILE).read_text()).values()) == [16]

    def fail(*args):
        raise FileNotFoundError("the file of another process")

    monkeypatch.setattr("stylegan.training.memory.write_atomic", fail)
    note_overflow(state, tmp_path)
    note_overflow(state, tmp_path / "of another machine")
    assert not (tmp_path / "of another machine").exists()
