"""How many CPU threads a run computes with.

A parallel loop of OpenMP waits for its slowest thread. If another process takes one of the cores,
all threads wait for the one that shares it, and training slows down several times. So by default
one core is left free.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def available_threads() -> int:
    """Return the number of threads that OMP_NUM_THREADS allows, or else that of the cores."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return max(int(value) if value.isdecimal() else torch.get_num_threads(), 1)


def default_threads() -> tuple[int, str]:
    """Return the number of threads of each rank, and the reason for it.

    All cores but one, divided among the ranks of this machine, or OMP_NUM_THREADS.
    """
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return available_threads(), "as OMP_NUM_THREADS says"
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    num = max((available_threads() - 1) // num_ranks, 1)
    return num, "all cores but one, so that another process does not slow down training"


@contextmanager
def using_threads(num: int | None) -> Iterator[None]:
    """Compute with so many threads in the block; None changes nothing."""
    before = torch.get_num_threads()
    if num is not None:
        torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
