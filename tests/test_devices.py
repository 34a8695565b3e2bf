import pytest
import torch

from stylegan import devices
from stylegan.errors import ConfigError
from stylegan.ops.precision import float32_precision, is_tf32


def machine_with(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device_that_is_there(monkeypatch, cuda, mps, expected):
    machine_with(monkeypatch, cuda=cuda, mps=mps)
    assert devices.resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_a_device_that_is_there_is_taken_by_name(monkeypatch, name):
    machine_with(monkeypatch, cuda=True, mps=True)
    assert devices.resolve_device(name) == torch.device(name)


def test_each_process_of_torchrun_takes_a_device_of_its_own(monkeypatch):
    machine_with(monkeypatch, cuda=True, mps=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices.resolve_device("auto") == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("auto") == torch.device("cuda", 1)
    assert devices.resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(monkeypatch, name):
    machine_with(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ConfigError, match=f"--device {name}: .*expected one of cpu; "):
        devices.resolve_device(name)


def test_tf32_is_off_once_a_device_is_chosen_unless_the_caller_chose_it():
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    with float32_precision(tf32=True):
        devices.resolve_device("cpu")
        assert is_tf32()
    assert is_tf32()
    devices.resolve_device("cpu")
    assert not is_tf32()
