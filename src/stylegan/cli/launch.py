"""Several processes of one command on this machine, as `torchrun` starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

import torch

from stylegan.errors import ConfigError


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

    Interrupted, it lets them save what they have.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={num}", "-m", "stylegan", *arguments),
    ]
    # each process takes its share of the cores; torchrun would give it one
    threads = max(1, (os.cpu_count() or 1) // num)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    received: list[int] = []
    process = subprocess.Popen(command, env=environment)

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    before = {each: signal.signal(each, forward) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if received:
        return 128 + received[0]
    return 0 if status == 0 else 1
