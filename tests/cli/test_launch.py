"""`--gpus N`: what the processes get, and what becomes of them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from stylegan.cli import launch as module
from stylegan.cli.launch import LAUNCHER, launch


class Recorder:
    def __init__(self, command, env, **options):
        self.command, self.env = command, env
        RECORDED.append(self)

    def poll(self):
        return 0

    def wait(self, timeout=None):
        return 0


RECORDED = []


def test_processes_get_an_environment_of_their_own(monkeypatch):
    RECORDED.clear()
    monkeypatch.setattr(module.subprocess, "Popen", Recorder)
    monkeypatch.setenv("WORLD_SIZE", "1")  # as some clusters set it: each would start others
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OF_THE_USER", "kept")
    assert launch(["train"], num=2) == 0
    environments = [each.env for each in RECORDED]
    assert [env["RANK"] for env in environments] == ["0", "1"]
    for env in environments:
        assert (env["WORLD_SIZE"], env["OMP_NUM_THREADS"]) == ("2", "3")
        assert env["MASTER_PORT"] != "29500"
        assert env["OF_THE_USER"] == "kept"
        assert "TORCHELASTIC_USE_AGENT_STORE" not in env
        assert env[LAUNCHER] == str(os.getpid())


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGHUP, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_processes_save_and_end_with_the_one_that_launched_them(number, image_folder, tmp_path):
    run = tmp_path / "run"
    words = [
        *(sys.executable, "-m", "stylegan", "train", "--gpus", "2", "--out", str(run)),
        *("--data", str(image_folder), "--preset", "stylegan2-e", "--device", "cpu"),
        *("--channel-base", "64", "--channel-max", "8", "--batch", "8", "--precision", "fp32"),
        *("--metrics", "none", "--set", "output.samples=4", "--total-kimg", "1000"),
        *("--set", "output.tick_kimg=0.04", "--set", "generator.mapping_layers=2"),
    ]
    told = tmp_path / "told"
    with told.open("w") as out:
        launcher = subprocess.Popen(
            words,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    wait_for(lambda: has_lines(run / "log.jsonl"), told)
    assert not list(run.glob("checkpoints/*.pt"))
    launcher.send_signal(number)
    status = launcher.wait(60)
    wait_for(lambda: list(run.glob("checkpoints/*.pt")), told)
    wait_for(lambda: "saved; the same line goes on" in told.read_text(), told)
    assert status == (129 if number == signal.SIGHUP else -signal.SIGKILL)
    size = (run / "log.jsonl").stat().st_size
    time.sleep(3)
    assert (run / "log.jsonl").stat().st_size == size


def has_lines(path):
    return path.exists() and path.stat().st_size > 0


def wait_for(condition, told, limit_s=120.0):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, told.read_text()[-3000:]
        time.sleep(0.05)
