"""The only file that names `torch.distributed`: several processes that work as one.

With one process every function here does nothing, so callers need no second path.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor

from stylegan.errors import ConfigError

# The leader may work for long, as on precision and recall, while the others wait.
_TIMEOUT = timedelta(hours=12)


def is_launched() -> bool:
    """Tell whether `torchrun` started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def process_group() -> Iterator[None]:
    """While open, the processes that `torchrun` started form a group; without it, nothing is done.

    Only tensors on the CPU are exchanged, through gloo.

    Raises:
        ConfigError: if the other processes cannot be reached.
    """
    if not is_launched():
        yield
        return
    try:
        distributed.init_process_group("gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"rank {os.environ.get('RANK')} cannot join the other processes ({error})",
            expected="processes that `torchrun` started",
            fix="start the same line by torchrun, or without it",
        ) from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return this process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_leader() -> bool:
    """Tell whether this process is the one that writes."""
    return rank() == 0


def gather(tensor: Tensor) -> list[Tensor]:
    """Return to the leader the tensors of all processes, in their order; to others nothing.

    Args:
        tensor: on the CPU, of the same shape and dtype in every process.
    """
    if world_size() == 1:
        return [tensor]
    tensor = tensor.contiguous()
    received = [torch.empty_like(tensor) for _ in range(world_size())] if is_leader() else None
    distributed.gather(tensor, received)
    return received or []


def agree(decision: bool) -> bool:
    """Return the leader's decision to all processes."""
    if world_size() == 1:
        return decision
    flag = torch.tensor([int(decision)])
    distributed.broadcast(flag, src=0)
    return bool(flag)
