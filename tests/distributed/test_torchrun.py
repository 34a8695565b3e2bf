"""Runs of `stylegan train` in processes that `torchrun` starts, and what may happen to them.

`test_training_together.py` has the same for processes that start within a second.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distributed.runs import check_same, has_ticked, train_line, weights

LIMIT_S = 120  # the others stop within two minutes


def line(data, out, **options):
    return ["-m", "stylegan", *train_line(data, out, **options)]


def start(words, *, num=2, restarts=0, code=None):
    """Start processes by torchrun; `code` is run in each in place of the module."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={num}", f"--max-restarts={restarts}", "--monitor-interval=0.2"),
    ]
    if code is not None:
        command += [str(code), *words[3:]]
    else:
        command += words
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    out, _ = process.communicate(timeout=300)
    return process.returncode, out


def process_of_rank(launcher, number):
    """Find the process that torchrun started as a rank."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # gone, or not ours
                continue
            if int(parent) == launcher.pid and f"RANK={number}".encode() in environment:
                return int(entry.name)
    raise AssertionError(f"no process of rank {number}")


def wait_for(condition, *, process, limit_s=120.0):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.05)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


@pytest.mark.slow
@needs_proc
def test_a_run_with_a_killed_rank_continues_by_itself(data, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start(line(data, out, kimg=0.16), restarts=2)
    wait_for(lambda: list(out.glob("checkpoints/*.pt")), process=process)
    os.kill(process_of_rank(process, 1), signal.SIGKILL)
    status, output = finish(process)
    assert status == 0, output[-3000:]
    assert "resumed at" in output
    assert "rank 0 lost the other ranks" in output
    check_same(out, undisturbed)


@pytest.mark.slow
@needs_proc
def test_a_signal_to_the_whole_tree_saves(data, tmp_path):
    out = tmp_path / "run"
    words = line(data, out, kimg=1000, checkpoint_kimg=1000)
    process = start(words)
    wait_for(lambda: has_ticked(out), process=process)
    for number in (1, 0):  # and once more from torchrun, as SLURM and systemd do
        os.kill(process_of_rank(process, number), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    status, output = finish(process)
    assert status != 0
    assert "SIGTERM and saved; `stylegan train --out" in output
    assert "KeyboardInterrupt" not in output
    assert len(list(out.glob("checkpoints/*.pt"))) == 1


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_job_with_its_traceback(data, tmp_path):
    code = tmp_path / "fails.py"
    code.write_text(
        "import sys\n"
        "from stylegan import distributed\n"
        "from stylegan.cli.main import main\n"
        "from stylegan.training import loop\n"
        "step = loop.train_step\n"
        "def fail(state, *args, **options):\n"
        "    if distributed.rank() == 1 and state.iteration == 3:\n"
        "        raise ZeroDivisionError('the planted one')\n"
        "    return step(state, *args, **options)\n"
        "loop.train_step = fail\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    started_s = time.monotonic()
    process = start(["", "", "", *line(data, tmp_path / "run", kimg=0.16)[2:]], code=code)
    status, output = finish(process)
    assert status != 0
    assert "ZeroDivisionError: the planted one" in output
    assert "Connection closed" not in output.partition("ZeroDivisionError")[0]
    assert time.monotonic() - started_s < LIMIT_S


@pytest.mark.slow
def test_gpus_starts_ranks_on_this_machine(data, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, *line(data, out, kimg=0.08), "--gpus", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    # only rank 0 prints
    assert done.stdout.count("0.1 kimg, complete") == 1
    assert weights(out)[0] == "000000080"


@pytest.mark.slow
@needs_proc
def test_a_rank_that_hangs_ends_the_job_within_two_minutes(data, tmp_path):
    out = tmp_path / "run"
    process = start(line(data, out, kimg=100))
    wait_for(lambda: has_ticked(out), process=process)
    stopped, started_s = process_of_rank(process, 1), time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    try:
        process.wait(LIMIT_S)  # torchrun ends the rank that hangs, too
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert time.monotonic() - started_s < LIMIT_S
    _, output = finish(process)
    assert "rank 0 lost the other ranks: one of them failed, or hangs for more than" in output
