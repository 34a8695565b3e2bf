import os
import signal

import pytest

import stylegan
from stylegan.cli import main as cli
from stylegan.errors import DataError


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_version(capsys, word):
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"stylegan {stylegan.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status"), [(["help"], 0), (["--help"], 0), (["-h"], 0), ([], 2)]
)
def test_help_lists_every_command(capsys, arguments, status):
    assert cli.main(arguments) == status
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    assert "Example:" in out


def test_an_unknown_command_is_wrong_usage(capsys):
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "stylegan: there is no command 'trian'; did you mean train?\n"
    assert cli.main(["generate", "imags"]) == 2
    assert (
        capsys.readouterr().err
        == "stylegan generate: there is no command 'imags'; did you mean images?\n"
    )
    assert cli.main(["xyz"]) == 2
    assert capsys.readouterr().err == "stylegan: there is no command 'xyz'; see `stylegan --help`\n"


def test_help_of_a_command_is_its_own(capsys):
    with pytest.raises(SystemExit):
        cli.main(["help", "convert"])
    assert capsys.readouterr().out.startswith("usage: stylegan convert ")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    try:
        status = cli.main([name, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status == 0
    assert f"Example: stylegan {name}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("a\nb", expected="c", fix="d"), 1, "stylegan data: a b; expected c; d\n"),
        (KeyboardInterrupt(), 130, "stylegan data: interrupted\n"),
    ],
)
def test_failures_are_one_line_and_a_status(monkeypatch, capsys, error, status, message):
    def fail(arguments):
        raise error

    monkeypatch.setattr("stylegan.cli.data.main", fail)
    assert cli.main(["data"]) == status
    assert capsys.readouterr().err == message


def test_sigterm_cleans_up_and_exits_with_143(monkeypatch, capsys):
    cleaned = []

    def wait(arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("stylegan.cli.data.main", wait)
    assert cli.main(["data"]) == 143
    assert cleaned
    assert capsys.readouterr().err == "stylegan data: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "out/a.png"), "out/a.png: No space left on device"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate"),
            "lower --batch, the number of channels",
        ),
        (MemoryError(), "this machine has not enough memory"),
    ],
)
def test_a_full_disk_or_device_is_reported_in_one_line(monkeypatch, capsys, error, message):
    def fail(arguments):
        raise error

    monkeypatch.setattr("stylegan.cli.data.main", fail)
    assert cli.main(["data"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ConnectionResetError("a bug")])
def test_an_unexpected_error_is_logged_with_its_traceback(monkeypatch, capsys, error):
    def fail(arguments):
        raise error

    monkeypatch.setattr("stylegan.cli.data.main", fail)
    assert cli.main(["data"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "stylegan data: unexpected error, please report it"
    assert lines[1] == "Traceback (most recent call last):"
    assert "    raise error" in lines
    assert lines[-1] == f"{type(error).__name__}: a bug"


@pytest.mark.parametrize("width", [60, 80])
def test_help_is_as_wide_as_the_terminal(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        cli.main(["generate", "video", "--help"])
    lines = capsys.readouterr().out.splitlines()
    paragraphs = [line for line in lines if line[:1].isalpha() and "Example: " not in line]
    assert len(paragraphs) > 5
    assert width - 15 < max(map(len, paragraphs)) <= width
    (example,) = [line for line in lines if line.startswith("Example: ")]
    assert example.endswith("--out loop.gif")
