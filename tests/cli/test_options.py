import pytest
import torch

from stylegan.cli import options
from stylegan.errors import ConfigError


def machine_with(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device_that_is_there(monkeypatch, cuda, mps, expected):
    machine_with(monkeypatch, cuda=cuda, mps=mps)
    assert options.resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_a_device_that_is_there_is_taken_by_name(monkeypatch, name):
    machine_with(monkeypatch, cuda=True, mps=True)
    assert options.resolve_device(name) == torch.device(name)


def test_each_process_of_torchrun_takes_a_device_of_its_own(monkeypatch):
    machine_with(monkeypatch, cuda=True, mps=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert options.resolve_device("auto") == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert options.resolve_device("auto") == torch.device("cuda", 1)
    assert options.resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(monkeypatch, name):
    machine_with(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ConfigError, match=f"--device {name}: .*expected one of cpu; "):
        options.resolve_device(name)


def test_the_console_writes_to_standard_output_without_wrapping(capsys):
    options.console().print("a" * 300)
    assert capsys.readouterr().out == "a" * 300 + "\n"


def test_silent_progress_shows_nothing(capsys):
    with options.progress(silent=True) as bar:
        for _ in bar.track(range(3), description="images"):
            pass
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_progress_goes_to_standard_error(capsys):
    with options.progress() as bar:
        for _ in bar.track(range(3), description="images"):
            pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "images" in captured.err
    assert "3/3" in captured.err
