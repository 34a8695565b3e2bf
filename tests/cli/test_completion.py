"""The scripts that complete command lines."""

import shutil
import subprocess

import pytest

from stylegan.cli.completion import bash_script, fish_script, zsh_script
from stylegan.cli.main import COMMANDS, main
from stylegan.training.presets import PRESETS


@pytest.fixture(scope="module")
def script():
    return bash_script()


def completed(script, *words):
    """Return what bash offers for the last word of a command line."""
    line = (
        f'{script}\nCOMP_WORDS=(stylegan "$@"); COMP_CWORD=$#; _stylegan; echo "${{COMPREPLY[*]}}"'
    )
    command = ["bash", "-c", line, "bash", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@needs_bash
def test_bash_completes_commands_options_and_values(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert set(completed(script, "")) == {*COMMANDS, "help", "version"}
    assert completed(script, "ge") == ["generate"]
    assert completed(script, "help", "ge") == ["generate"]
    assert completed(script, "completion", "") == ["bash", "zsh", "fish"]
    assert completed(script, "data", "") == ["prepare", "check", "info", "augment", "shard"]
    assert "--psis" in completed(script, "generate", "truncation", "--")
    assert completed(script, "generate", "images", "--noise-mode", "") == [
        "const",
        "random",
        "none",
    ]
    assert completed(script, "train", "--preset", "") == list(PRESETS)
    assert completed(script, "train", "--loss.ga") == ["--loss.gamma"]
    assert set(completed(script, "evaluate", "--wat")) == {"--watch"}
    assert completed(script, "convert", "weights") == []  # then bash completes file names


def test_every_shell_has_every_command():
    for script in (zsh_script(), fish_script()):
        assert all(name in script for name in COMMANDS)
        assert "metrics-fraction" in script


def test_the_command_prints_a_script_or_says_what_is_wrong(capsys, script):
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == script
    assert main(["completion", "fihs"]) == 2
    assert "there is no command 'fihs'; did you mean fish?" in capsys.readouterr().err
