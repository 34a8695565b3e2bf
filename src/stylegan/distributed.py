"""Training and evaluation on several ranks: the only module that uses `torch.distributed`.

`torchrun` starts the ranks, ends all of them when one fails, and restarts them if asked. With one
process every function here is a no-op, so callers need no second code path.

A collective that does not complete within `TIMEOUT_S` fails, so that a hanging rank ends the job. A
rank that works for longer on its own does so within `keep_others_waiting`.
"""

import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.rendezvous import rendezvous

from stylegan.errors import ConfigError, PeerError, Stopped, StyleganError

TIMEOUT_S = 60.0  # of a collective; torchrun then takes up to 30 s to end a rank that hangs
JOIN_TIMEOUT_S = 600.0  # until all ranks have started
KEEP_ALIVE_S = 10.0  # between two signs of a rank that works on its own
SAME_ERROR_S = 3.0  # until another rank fails with the same error

# Values of a vote, beyond those that callers use.
_FAILED, _STOPPED, _WAIT = 2**60, 2**61, 2**62  # _FAILED has the number of the rank added


def is_launched() -> bool:
    """Whether `torchrun` started this process as one of several ranks."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def cuda_index() -> int | None:
    """Return the index of this rank's CUDA device; None if `torchrun` did not start the process.

    If there are more ranks than visible devices, they share them, as where CUDA_VISIBLE_DEVICES
    gives each rank its own device.
    """
    local_rank = os.environ.get("LOCAL_RANK", "")
    if not local_rank.isdecimal():
        return None
    return int(local_rank) % max(torch.cuda.device_count(), 1)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other ranks that `torchrun` started; without torchrun, do nothing.

    Collectives on CPU tensors use gloo, those on CUDA tensors NCCL. An exception that leaves the
    block is recorded for torchrun, which prints the first one of all ranks. If a user's mistake
    ends all ranks, only rank 0 reports it, see `reports_error`.

    Raises:
        ConfigError: if the other ranks cannot be reached.
        PeerError: from a collective, if another rank failed or hangs.
    """
    global _fails_alone
    _fails_alone = False
    if not is_launched():
        yield
        return
    try:
        store = _join()
    except (RuntimeError, ValueError, KeyError) as error:
        _fails_alone = True
        raise ConfigError(
            f"rank {os.environ.get('RANK')} cannot join the other ranks ({error})",
            fix="start all ranks by the same torchrun command, or run without torchrun",
        ) from error
    try:
        yield
    except PeerError:
        _fails_alone = True
        raise
    except StyleganError as error:
        _fails_alone = not _is_error_of_rank_0(str(error), store)
        if reports_error():
            get_error_handler().record_exception(error)
        raise
    except Exception as error:
        get_error_handler().record_exception(error)
        raise
    finally:
        dist.destroy_process_group()


def _join() -> Store:
    """Initialize the process group from the environment variables that torchrun sets."""
    is_cuda = torch.cuda.is_available()
    if is_cuda and (index := cuda_index()) is not None:
        torch.cuda.set_device(index)
    timeout = timedelta(seconds=JOIN_TIMEOUT_S)
    shared, rank, world_size = next(rendezvous("env://", timeout=timeout))
    # After a restart, torchrun's store still holds the addresses of the ranks before, and gloo
    # would connect to them (torch 2.13). So the keys of each start have a prefix of their own.
    if rank == 0:
        shared.set("stylegan/start", uuid.uuid4().hex)
    store = PrefixStore(shared.get("stylegan/start").decode(), shared)
    if store.add("joined", 1) == world_size:
        shared.delete_key("stylegan/start")
        store.set("all_joined", "")
    store.wait(["all_joined"], timeout)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    return store


def _is_error_of_rank_0(message: str, store: Store) -> bool:
    """Return whether rank 0 fails with the same message, or this is rank 0."""
    timeout = timedelta(seconds=SAME_ERROR_S)
    others = [f"error_read/{number}" for number in range(1, world_size())]
    with suppress(RuntimeError):  # a rank has ended, or does not fail
        if is_main_process():
            store.set("error", message)
            store.wait(others, timeout)  # the store may end with this process
            return True
        store.wait(["error"], timeout)
        is_same = store.get("error") == message.encode()
        store.set(f"error_read/{rank()}", "")
        return is_same
    return is_main_process()


def rank() -> int:
    """Return the number of this rank, from 0."""
    return dist.get_rank() if _has_group() else 0


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if _has_group() else 1


def is_main_process() -> bool:
    """True on rank 0, which writes files."""
    return rank() == 0


def reports_to_user() -> bool:
    """True on rank 0, also before the process group exists."""
    return os.environ.get("RANK", "0") == "0"


_fails_alone = False


def reports_error() -> bool:
    """Whether this process reports the mistake that ends it: rank 0, or a rank that fails alone.

    Mistakes that are noticed before the process group exists are noticed by all ranks.
    """
    return reports_to_user() or _fails_alone


_is_standalone = False


def _has_group() -> bool:
    return dist.is_initialized() and not _is_standalone


@contextmanager
def standalone() -> Iterator[None]:
    """Compute without the other ranks in the block, as if this were the only process."""
    global _is_standalone
    _is_standalone = True
    try:
        yield
    finally:
        _is_standalone = False


def gather(tensor: Tensor) -> list[Tensor]:
    """Return the tensors of all ranks to rank 0, in order, and an empty list to the others.

    Args:
        tensor: on the CPU, of the same shape and dtype on every rank.
    """
    if world_size() == 1:
        return [tensor]
    tensor = tensor.contiguous()
    received = (
        [torch.empty_like(tensor) for _ in range(world_size())] if is_main_process() else None
    )
    _vote(0)
    with _reporting_lost_ranks():
        dist.gather(tensor, received)
    return received or []


def all_reduce_sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of tensors over all ranks, by one all-reduce of all of them.

    The sums are bitwise equal on all ranks.

    Args:
        tensors: of the same shapes, dtypes and device type on every rank.
    """
    if world_size() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    with _reporting_lost_ranks():
        dist.all_reduce(flat)
    sums = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [
        total.view(tensor.shape).to(tensor.dtype)
        for total, tensor in zip(sums, tensors, strict=True)
    ]


def all_reduce_max(value: int) -> int:
    """Return the largest value of all ranks."""
    return value if world_size() == 1 else _vote(value)


def barrier() -> None:
    """Wait for all ranks."""
    all_reduce_max(0)


def broadcast_bool(decision: bool) -> bool:
    """Return rank 0's decision on all ranks."""
    return bool(all_reduce_max(int(decision and is_main_process())))


def broadcast_bytes(content: bytes | None) -> bytes | None:
    """Return rank 0's bytes, or its None, on all ranks."""
    if world_size() == 1:
        return content
    content = content if is_main_process() else None
    size = _vote(0 if content is None else 1 + len(content)) - 1
    if size < 0:
        return None
    data = torch.empty([size], dtype=torch.uint8)
    if content:
        data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    with _reporting_lost_ranks():
        dist.broadcast(data, src=0)
    return data.numpy().tobytes()


def check_same_on_all_ranks(content: str, what: str) -> None:
    """Check that all ranks have the same text, such as the options of a run.

    Raises:
        ConfigError: if a rank differs from rank 0.
    """
    expected = broadcast_bytes(content.encode())
    if all_reduce_max(int(expected != content.encode())):
        raise ConfigError(f"{what} differ between the ranks", fix="start all by the same command")


_is_working_alone = False


@contextmanager
def keep_others_waiting() -> Iterator[None]:
    """Let this rank work on its own for as long as it takes; no collectives in the block.

    The other ranks wait in their next collective, except `all_reduce_sum`. It does not time out as
    long as a thread of this rank answers that it still works.
    """
    global _is_working_alone
    if world_size() == 1:
        yield
        return
    is_done = threading.Event()

    def answer() -> None:
        with suppress(RuntimeError):  # a rank is gone: the next collective fails, too
            while not is_done.wait(KEEP_ALIVE_S):
                _reduce_once(_WAIT)

    thread = threading.Thread(target=answer, name="keep others waiting", daemon=True)
    thread.start()
    _is_working_alone = True
    try:
        try:
            yield
        finally:
            _is_working_alone = False
    finally:  # also if a signal handler raised in the inner one
        is_done.set()
        thread.join()


_is_stop_requested = False


def stop() -> None:
    """Raise Stopped in a signal handler: now, or on all ranks in the next collective.

    A rank that raised on its own, between or in collectives, would leave the others waiting.
    """
    global _is_stop_requested
    if world_size() == 1 or _is_working_alone:
        raise Stopped
    _is_stop_requested = True


class RankFailedError(RuntimeError):
    """Another rank failed in a block of `failing_on_all_ranks`."""


class _StoppedOnAllRanks(Stopped):
    """Stopped, raised on all ranks by the same vote."""


@contextmanager
def failing_on_all_ranks() -> Iterator[None]:
    """Raise on all ranks if one rank raises in the block, so that all continue at the same place.

    The rank that failed reports it in the vote in which the others take part next. Every collective
    but `all_reduce_sum`, which must not be used in the block, starts with a vote.

    Raises:
        RankFailedError: if another rank raised an Exception.
        Stopped: if a rank raised it or called `stop`, even if this one failed.
    """
    global _is_stop_requested
    if world_size() == 1:
        yield
        return
    _is_stop_requested = False
    try:
        yield
        _vote(0)
    except (PeerError, RankFailedError, _StoppedOnAllRanks):
        raise  # all ranks know
    except (Exception, Stopped) as error:
        is_stopped = isinstance(error, Stopped) or _is_stop_requested
        verdict = _reduce(_STOPPED if is_stopped else _FAILED + rank())
        if verdict >= _STOPPED and not isinstance(error, Stopped):
            raise Stopped from error
        raise
    finally:
        _is_stop_requested = False


def _vote(value: int) -> int:
    """Return the largest value of all ranks, unless one of them failed or is to stop."""
    result = _reduce(_STOPPED if _is_stop_requested else value)
    if result >= _STOPPED:
        raise _StoppedOnAllRanks
    if result >= _FAILED:
        raise RankFailedError(f"rank {result - _FAILED} failed")
    return result


def _reduce(value: int) -> int:
    """Return the largest value of all ranks once none of them says to wait."""
    with _reporting_lost_ranks():
        while (result := _reduce_once(value)) == _WAIT:
            pass
    return result


def _reduce_once(value: int) -> int:
    tensor = torch.tensor([value])
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


@contextmanager
def _reporting_lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise PeerError(
            f"rank {rank()} lost the other ranks: one of them failed, or hangs for more than "
            f"{TIMEOUT_S:g} s ({reason})"
        ) from error
