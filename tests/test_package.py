"""What holds for the package as a whole: import, no compiler, no network."""

import copy
import os
import subprocess
import sys

import stylegan
from stylegan.errors import DataError

NO_NETWORK = """
import socket, sys
def refuse(*_, **__):
    raise OSError("this test has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from stylegan.cli.main import main
status = main(sys.argv[1:])
print("torch's compiler is imported:", "torch._dynamo" in sys.modules)
sys.exit(status)
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
    modules = {"analyze", "directions", "generate"}  # of functions
    for name in stylegan.__all__:
        assert callable(getattr(stylegan, name)) or name in modules
    assert callable(stylegan.generate.images)
    assert not hasattr(stylegan, "trian")


def test_trains_and_generates_without_compiler_and_network(image_folder, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "CC"}
    environment["PATH"] = str(tmp_path)  # nothing on it
    train = [
        "train", "--preset", "stylegan2-small", "--data", str(image_folder),
        "--out", str(tmp_path / "run"), "--channel-base", "64", "--channel-max", "6",
        "--batch", "4", "--kimg", "0.008", "--device", "cpu", "--metrics", "swd12",
    ]  # fmt: skip
    done = run("-c", NO_NETWORK, *train, env=environment)
    assert done.returncode == 0, done.stderr
    generate = ["generate", "images", "--network", str(tmp_path / "run"), "--seeds", "0-1"]
    done = run("-c", NO_NETWORK, *generate, "--out", str(tmp_path / "out"), env=environment)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert "torch's compiler is imported: False" in done.stdout  # it takes two seconds


def test_errors_survive_the_way_between_processes():
    error = DataError("a", expected="b", fix="c")
    twin = copy.copy(error)  # by the same protocol as pickle
    assert (type(twin), str(twin), twin.fix) == (type(error), "a; expected b; c", "c")
