"""Runs of `stylegan train` in processes that `torchrun` starts, and what may happen to them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = [
    *("--preset", "stylegan2-e", "--resolution", "16", "--channel-base", "64"),
    *("--channel-max", "8", "--batch", "8", "--device", "cpu", "--precision", "fp32"),
    *("--metrics", "none", "--set", "output.samples=4", "--set", "generator.mapping_layers=2"),
]
LIMIT_S = 120  # the others stop within two minutes


def line(data, out, *, kimg, checkpoint_kimg=0.04):
    return [
        *("-m", "stylegan", "train", "--data", str(data), "--out", str(out), *OPTIONS),
        *("--total-kimg", str(kimg), "--checkpoint-kimg", str(checkpoint_kimg)),
    ]


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


def weights(run):
    (*_, last) = sorted((run / "snapshots").iterdir())
    return last.name, load_file(last / "model.safetensors")


def check_same(run, other):
    (nimg, tensors), (expected_nimg, expected) = weights(run), weights(other)
    assert nimg == expected_nimg
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())


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


def has_ticked(run):
    log = run / "log.jsonl"
    return log.exists() and log.stat().st_size > 0


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    status, output = finish(start(line(data, out, kimg=0.8)))
    assert status == 0, output[-3000:]
    return out


@needs_proc
def test_a_run_with_a_killed_rank_continues_by_itself(data, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start(line(data, out, kimg=0.8), restarts=2)
    wait_for(lambda: list(out.glob("checkpoints/*.pt")), process=process)
    os.kill(process_of_rank(process, 1), signal.SIGKILL)
    status, output = finish(process)
    assert status == 0, output[-3000:]
    assert "resumed at" in output
    assert "rank 0 lost the other ranks" in output
    check_same(out, undisturbed)


@needs_proc
def test_a_signal_to_one_rank_stops_all_and_one_process_continues(data, undisturbed, tmp_path):
    out = tmp_path / "run"
    words = line(data, out, kimg=0.8, checkpoint_kimg=0.8)
    process = start(words)
    wait_for(lambda: has_ticked(out), process=process)
    os.kill(process_of_rank(process, 1), signal.SIGINT)
    status, output = finish(process)
    assert status != 0  # torchrun's own, as its processes ended with 130
    assert "SIGINT and saved; the same command continues the run" in output
    assert len(list(out.glob("checkpoints/*.pt"))) == 1
    alone = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=200)
    assert alone.returncode == 0, alone.stderr
    assert "resumed at" in alone.stderr
    assert weights(out)[0] == weights(undisturbed)[0]


@needs_proc
def test_a_signal_to_the_whole_tree_saves(data, tmp_path):
    out = tmp_path / "run"
    words = line(data, out, kimg=1000, checkpoint_kimg=1000)
    process = start([*words, "--set", "output.tick_kimg=0.04"])
    wait_for(lambda: has_ticked(out), process=process)
    for number in (1, 0):  # and once more from torchrun, as SLURM and systemd do
        os.kill(process_of_rank(process, number), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    status, output = finish(process)
    assert status != 0
    assert "SIGTERM and saved; the same command continues the run" in output
    assert "KeyboardInterrupt" not in output
    assert len(list(out.glob("checkpoints/*.pt"))) == 1


def test_only_rank_0_needs_the_initial_weights(data, undisturbed, tmp_path):
    code = tmp_path / "elsewhere.py"
    code.write_text(
        "import os, sys\n"
        "from stylegan.cli.main import main\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.makedirs('elsewhere', exist_ok=True)\n"
        "    os.chdir('elsewhere')\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "source").symlink_to(sorted((undisturbed / "snapshots").iterdir())[-1])
    words = [*line(data, "run", kimg=0.08), "--init-from", "source"]
    status, output = finish(start(["", "", "", *words[2:]], code=code))
    assert status == 0, output[-3000:]
    assert weights(tmp_path / "run")[0] == "000000080"
    assert not (tmp_path / "elsewhere" / "run").exists()


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
    process = start(["", "", "", *line(data, tmp_path / "run", kimg=0.8)[2:]], code=code)
    status, output = finish(process)
    assert status != 0
    assert "ZeroDivisionError: the planted one" in output
    assert "Connection closed" not in output.partition("ZeroDivisionError")[0]
    assert time.monotonic() - started_s < LIMIT_S


def test_gpus_starts_ranks_on_this_machine(data, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, *line(data, out, kimg=0.08), "--gpus", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    # one tells what goes on
    assert done.stdout.count("0.1 kimg, complete") == 1
    assert weights(out)[0] == "000000080"


def test_a_mistake_is_reported_in_one_line(data, tmp_path):
    words = [sys.executable, *line(data, tmp_path / "run", kimg=0.08), "--gpus", "2"]
    words[words.index("--batch") + 1] = "4"
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "batch 4 in groups of 4 (discriminator.mbstd_group_size) cannot be split" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@needs_proc
@pytest.mark.parametrize("timeout_s", [3.0, pytest.param(None, marks=pytest.mark.slow)])
def test_a_rank_that_hangs_ends_the_job_within_two_minutes(data, tmp_path, timeout_s):
    out, code = tmp_path / "run", tmp_path / "limited.py"
    code.write_text(
        "import sys\n"
        "from stylegan import distributed\n"
        "from stylegan.cli.main import main\n"
        f"distributed.TIMEOUT_S = {timeout_s} or distributed.TIMEOUT_S\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = start(["", "", "", *line(data, out, kimg=100)[2:]], code=code)
    wait_for(lambda: has_ticked(out), process=process)
    stopped, started_s = process_of_rank(process, 1), time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    try:
        first = process_of_rank(process, 0)
        wait_for(lambda: not Path(f"/proc/{first}").exists(), process=process, limit_s=LIMIT_S)
        if timeout_s is None:  # torchrun ends the rank that hangs, too
            process.wait(LIMIT_S - (time.monotonic() - started_s))
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert time.monotonic() - started_s < LIMIT_S
    _, output = finish(process)
    assert "rank 0 lost the other ranks: one of them failed, or hangs for more than" in output
