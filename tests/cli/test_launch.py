"""`--gpus N`: what the ranks get, and what becomes of them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stylegan.cli.launch import LAUNCHER, launch

REPORT = """
import json, os, sys
from pathlib import Path
rank = os.environ["RANK"]
Path(sys.argv[1], rank).write_text(json.dumps(dict(os.environ)))
sys.exit(int(sys.argv[2]) if rank == "1" else 0)
"""


@pytest.mark.parametrize("status", [0, 3])
def test_ranks_get_an_environment_of_their_own_and_their_failure_is_the_status(
    monkeypatch, tmp_path, status
):
    code = tmp_path / "report.py"
    code.write_text(REPORT)
    monkeypatch.setenv("WORLD_SIZE", "1")  # as some clusters set it: each would start others
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OF_THE_USER", "kept")
    before = signal.getsignal(signal.SIGTERM)
    assert launch([str(tmp_path), str(status)], num=2, program=[str(code)]) == status
    assert signal.getsignal(signal.SIGTERM) is before
    assert LAUNCHER not in os.environ
    for rank in ("0", "1"):
        environment = json.loads((tmp_path / rank).read_text())
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (rank, rank)
        assert (environment["WORLD_SIZE"], environment["OMP_NUM_THREADS"]) == ("2", "3")
        assert environment["MASTER_PORT"] != "29500"
        assert environment["OF_THE_USER"] == "kept"
        assert environment[LAUNCHER] == str(os.getpid())


def test_a_rank_that_is_killed_is_named(tmp_path, capfd):
    code = tmp_path / "die.py"
    code.write_text("import os\nif os.environ['RANK'] == '1':\n    os.kill(os.getpid(), 9)\n")
    assert launch([], num=2, program=[str(code)]) == 9
    assert capfd.readouterr().err == "stylegan: rank 1 was ended by SIGKILL\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
@pytest.mark.slow
def test_ranks_save_and_end_with_their_launcher(number, image_folder, tmp_path):
    run = tmp_path / "run"
    words = [
        *(sys.executable, "-m", "stylegan", "train", "--gpus", "2", "--out", str(run)),
        *("--data", str(image_folder), "--preset", "stylegan2-e", "--device", "cpu"),
        *("--channel-base", "64", "--channel-max", "8", "--batch", "8", "--precision", "fp32"),
        *("--metrics", "none", "--set", "output.samples=4", "--total-kimg", "1000"),
        *("--set", "output.tick_kimg=0.04", "--set", "generator.mapping_layers=2"),
    ]
    output = tmp_path / "output"
    with output.open("w") as out:
        launcher = subprocess.Popen(
            words,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    wait_for(lambda: has_lines(run / "log.jsonl"), output)
    assert not list(run.glob("checkpoints/*.pt"))
    launcher.send_signal(number)
    status = launcher.wait(60)
    wait_for(lambda: list(run.glob("checkpoints/*.pt")), output)
    wait_for(lambda: "and saved; the same command continues the run" in output.read_text(), output)
    assert status == (129 if number == signal.SIGHUP else -signal.SIGKILL)
    size = (run / "log.jsonl").stat().st_size
    time.sleep(3)
    assert (run / "log.jsonl").stat().st_size == size


def has_lines(path):
    return path.exists() and path.stat().st_size > 0


def wait_for(condition, output, limit_s=120.0):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, output.read_text()[-3000:]
        time.sleep(0.05)
