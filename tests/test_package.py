"""What holds for the package as a whole: import, no compiler, no network."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stylegan
from stylegan.errors import DataError

ROOT = Path(__file__).parents[1]
NO_NETWORK = """
import json, socket, sys
def refuse(*_, **__):
    raise OSError("this test has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from stylegan.cli.main import main
for words in json.loads(sys.argv[1]):
    status = main(words)
    print(words[0], status, "torch._dynamo" in sys.modules)
"""


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )


def test_import_gives_no_warning_and_does_not_import_torch():
    script = "import sys, stylegan; print('torch' in sys.modules)"
    done = run("-W", "error", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_public_names_are_there_and_others_are_not():
    modules = {"analyze", "directions", "export", "generate"}  # of functions
    for name in stylegan.__all__:
        assert callable(getattr(stylegan, name)) or name in modules
    assert callable(stylegan.generate.images)
    assert not hasattr(stylegan, "trian")


def test_public_names_are_listed_before_they_are_used():
    script = "import stylegan; print(*(name for name in stylegan.__all__ if name in dir(stylegan)))"
    assert run("-c", script).stdout.split() == stylegan.__all__


@pytest.mark.slow
def test_generates_and_trains_without_compiler_and_network(image_folder, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "CC"}
    environment["PATH"] = str(tmp_path)  # nothing on it
    sizes = ["--channel-base", "64", "--channel-max", "6"]
    stylegan.save(
        stylegan.create("stylegan2-e", 16, channel_base=64, channel_max=6), tmp_path / "g"
    )
    commands = [
        ["generate", "images", "--network", "g", "--seeds", "0-1", "--out", "out"],
        [
            *("train", "--preset", "stylegan2-small", "--data", str(image_folder), "--out", "run"),
            *("--batch", "4", "--kimg", "0.008", "--device", "cpu", "--metrics", "swd12", *sizes),
        ],
    ]
    done = run("-c", NO_NETWORK, json.dumps(commands), env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "generate 0 False\n" in done.stdout  # torch's compiler takes two seconds to import
    assert "train 0 " in done.stdout, done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert (tmp_path / "run" / "snapshots" / "000000008").is_dir()


def test_torch_is_required_from_the_release_that_reads_weight_files_safely():
    texts = {
        name: (ROOT / name).read_text(encoding="utf-8")
        for name in ("pyproject.toml", "README.md", "docs/start.md", "constraints.txt")
    }
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', texts["pyproject.toml"])
    assert tuple(map(int, oldest.split("."))) >= (2, 10)  # CVE-2026-24747
    (installed,) = re.findall(r"^torch==(\d+\.\d+)", texts["constraints.txt"], re.MULTILINE)
    assert f"tested: {installed}\n" in texts["pyproject.toml"]
    assert f"PyTorch {oldest} or newer (tested with {installed})" in texts["README.md"]
    assert f"PyTorch {oldest} or newer" in texts["docs/start.md"]


def test_errors_survive_the_way_between_processes():
    error = DataError("a", expected="b", fix="c")
    twin = copy.copy(error)  # by the same protocol as pickle
    assert (type(twin), str(twin), twin.fix) == (type(error), "a; expected b; c", "c")
