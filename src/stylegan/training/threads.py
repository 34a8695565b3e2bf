"""How many CPU threads a run computes with.

A parallel loop of OpenMP waits for its slowest thread. If another process takes one of the cores,
all threads wait for the one that shares it, and training slows down several times. So by default
one core is left free.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def default_threads() -> tuple[int, str]:
    """Return the number of threads of each rank, and the reason for it.

    All cores but one, divided among the ranks of this machine, or OMP_NUM_THREADS.
    """
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return max(int(os.environ["OMP_NUM_THREADS"]), 1), "as OMP_NUM_THREADS says"
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    num = max((torch.get_num_threads() - 1) // num_ranks, 1)
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
