"""`--gpus N`: several ranks of one command on this machine, started by torchrun's launcher."""

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence

import torch

from stylegan.errors import ConfigError
from stylegan.training.signals import stop_signals

LAUNCHER = "STYLEGAN_LAUNCHER"
"""Environment variable of each rank with the process id of its launcher."""
SHUTDOWN_S = 600
"""Seconds that the ranks have to save a checkpoint after a signal."""


def check_gpus(num: int, device: torch.device) -> None:
    """Check that this machine has as many devices.

    Raises:
        ConfigError: if it has fewer.
    """
    if num < 1:
        raise ConfigError(f"--gpus must be 1 or more, got {num}")
    if device.type == "cuda" and num > torch.cuda.device_count():
        raise ConfigError(
            f"--gpus is {num}, but this machine has {torch.cuda.device_count()}",
            fix="lower it; docs/scaling.md explains runs on several machines",
        )
    if device.type == "mps" and num > 1:
        raise ConfigError(f"--gpus is {num}, but mps is a single GPU", fix="leave --gpus out")


def launch(
    arguments: Sequence[str], *, num: int, program: Sequence[str] = ("-m", "stylegan")
) -> int:
    """Run a command on several ranks of this machine, and return the exit status.

    A signal is passed on, so that the ranks save what they have. If one rank fails, all end.

    Args:
        arguments: of the command line.
        num: number of ranks.
        program: what Python runs.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[LAUNCHER] = str(os.getpid())
    # The ranks share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in stop_signals()),
        shutdown_timeout=SHUTDOWN_S,
    )
    # Ranks report their errors; the launcher's own line would only repeat the exit status.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in stop_signals()}
    try:
        elastic_launch(config, sys.executable)(*program, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            sys.stderr.write(f"stylegan: rank {rank} was ended by {name}\n")
        return abs(failure.exitcode)
    except SignalException as error:
        return 128 + error.sigval
    finally:
        os.environ.pop(LAUNCHER, None)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def stop_with_launcher() -> None:
    """Send this process SIGTERM, which saves a checkpoint, if its launcher dies."""
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is None:
        return

    def watch() -> None:
        while str(os.getppid()) == launcher:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher", daemon=True).start()
