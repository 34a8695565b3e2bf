"""Processes for tests, forked from a server that has imported the library already.

A process of `python -m stylegan` takes seconds to import torch, on as many cores as there are
processes. Tests of what processes do together start them here; one test for each feature starts
the real command (`slow`, where it needs several).
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    # the last one is imported by torch's optimizers when they are first used
    ["stylegan.cli.train", "stylegan.cli.evaluate", "stylegan.training.loop", "torch._dynamo"]
)


@dataclass
class Group:
    """Processes and the file that their standard output and error go to."""

    processes: list[multiprocessing.Process]
    output_file: Path

    @property
    def output(self):
        return self.output_file.read_text()

    def kill(self, rank, number):
        os.kill(self.processes[rank].pid, number)

    def wait_for(self, condition, *, limit_s=120.0):
        """Wait until a condition holds, while all processes run."""
        end_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end_s, f"it never came\n{self.output[-3000:]}"
            assert all(process.is_alive() for process in self.processes), self.output[-3000:]
            time.sleep(0.02)

    def join(self, limit_s=120.0):
        """Wait for the end of all processes, and return their exit statuses."""
        end_s = time.monotonic() + limit_s
        for process in self.processes:
            process.join(max(0.0, end_s - time.monotonic()))
        statuses = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        assert None not in statuses, f"still running\n{self.output[-3000:]}"
        return statuses


def start(function, *arguments, folder, num=1, environment=None, cwd=None):
    """Call a function in `num` processes, as ranks of one group if there are several.

    Args:
        function: of a module, called in each process; what it returns is the exit status.
        arguments: of the function.
        folder: for the file of the output; created if it does not exist.
        num: number of processes.
        environment: variables that are added.
        cwd: the folder to start in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output_file = folder / "output.txt"
    output_file.touch()
    environment = dict(environment or {})
    if num > 1:
        environment |= {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1"}
        environment |= {"MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(num):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if num > 1 else {}
        process = CONTEXT.Process(
            target=call, args=(function, arguments, output_file, environment | own, cwd)
        )
        process.start()
        processes.append(process)
    return Group(processes, output_file)


def run(function, *arguments, folder, num=1, **options):
    """Call a function in processes, check that all end with 0, and return their output."""
    group = start(function, *arguments, folder=folder, num=num, **options)
    assert group.join() == [0] * num, group.output[-3000:]
    return group.output


def call(function, arguments, output_file, environment, cwd):
    """Be one of the processes."""
    descriptor = os.open(output_file, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    sys.exit(function(*arguments))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(words):
    """Run `stylegan` with its arguments."""
    from stylegan.cli.main import main

    return main(words)
