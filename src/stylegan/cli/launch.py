"""Several processes of one command on this machine, that work as one."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from stylegan.errors import ConfigError
from stylegan.training.signals import stop_signals

POLL_S = 0.1
LAUNCHER = "STYLEGAN_LAUNCHER"
"""The variable that tells a process which one has started it."""
GRACE_S = 30.0
"""Seconds that the others have to end by themselves after one has failed."""


def check_gpus(num: int, device: torch.device) -> None:
    """Check that this machine has as many devices.

    Raises:
        ConfigError: if it has not.
    """
    if num < 1:
        raise ConfigError(f"--gpus {num}", expected="1 or more", fix="leave it out for one")
    if device.type == "cuda" and num > torch.cuda.device_count():
        raise ConfigError(
            f"--gpus {num} on a machine with {torch.cuda.device_count()}",
            expected="no more than there are",
            fix="lower it; several machines work together by torchrun, see docs/scaling.md",
        )
    if device.type == "mps" and num > 1:
        raise ConfigError(
            f"--gpus {num} on mps", expected="1: Apple's GPU is one", fix="leave it out"
        )


def launch(arguments: Sequence[str], *, num: int) -> int:
    """Run `stylegan ARGUMENTS` in `num` processes that work as one, and return the exit status.

    A signal is passed on, so that they save what they have. If one fails, all end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # each process takes its share of the cores
        "OMP_NUM_THREADS": os.environ.get(
            "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num))
        ),
        LAUNCHER: str(os.getpid()),
    }
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "stylegan", *arguments],
            env={**inherited, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,  # Ctrl-C reaches them through us only, and once
        )
        for rank in range(num)
    ]
    with _forwarding(processes) as received:
        status = _wait(processes)
    return 128 + received[0] if received and status != 0 else status


def stop_with_launcher() -> None:
    """Let this process stop as by SIGTERM, with all saved, if the one that launched it dies."""
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is None:
        return

    def watch() -> None:
        while str(os.getppid()) == launcher:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all, or for the first that fails; return its status, or 0."""
    while True:
        found = [process.poll() for process in processes]
        failed = [status for status in found if status not in (None, 0)]
        if failed or None not in found:
            break
        time.sleep(POLL_S)
    end_s = time.monotonic() + GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return abs(failed[0] or 0) if failed else 0


@contextmanager
def _forwarding(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """While open, pass on what asks to stop; yield the signals that came."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    before = {each: signal.signal(each, forward) for each in stop_signals()}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
