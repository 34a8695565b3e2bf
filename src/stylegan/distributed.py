"""The only file that names `torch.distributed`: several processes that work as one.

With one process every function here does nothing, so callers need no second path.
"""

import hashlib
import logging
import os
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stylegan.errors import ConfigError, PeerError, Stopped, StyleganError

logger = logging.getLogger(__name__)

# The leader may work for long, as on the sums of a metric, while the others wait. That it lives is
# known from its heartbeat.
_TIMEOUT = timedelta(hours=12)
_JOINING = timedelta(minutes=10)
BEAT_S = 5.0
"""Seconds between two signs of life of a process ..."""
SILENCE_S = 60.0
"""... and without one, after which the others give it up."""
_FAILURE = "failure"


def is_launched() -> bool:
    """Tell whether `torchrun` started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def cuda_index() -> int | None:
    """Return the number of this process's CUDA device; None where `torchrun` did not start it.

    More processes than devices share them, as where CUDA_VISIBLE_DEVICES shows each its own.
    """
    local_rank = os.environ.get("LOCAL_RANK", "")
    if not local_rank.isdecimal():
        return None
    return int(local_rank) % max(torch.cuda.device_count(), 1)


@contextmanager
def process_group() -> Iterator[None]:
    """While open, the processes that `torchrun` started form a group; without it, nothing is done.

    Tensors on the CPU are exchanged through gloo, those on CUDA devices through NCCL. If a process
    fails, or gives no sign of life for a minute, the others stop, with its traceback.

    Raises:
        ConfigError: if the other processes cannot be reached.
        PeerError: if another process failed.
    """
    if not is_launched():
        yield
        return
    is_cuda = torch.cuda.is_available()
    if is_cuda and (index := cuda_index()) is not None:
        torch.cuda.set_device(index)
    try:
        number, num = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = _connect(is_master=number == 0 and not _has_agent())
        attempt = _join(store, number, num)
        watch = _Watch(_connect(is_master=False), attempt, number, num)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
            store=dist.PrefixStore(attempt, store),  # type: ignore[attr-defined]
            rank=number,
            world_size=num,
            timeout=_TIMEOUT,
        )
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"rank {os.environ.get('RANK')} cannot join the other processes ({error})",
            expected="processes that `torchrun` started",
            fix="start the same line by torchrun, or without it",
        ) from error
    try:
        with watch:
            yield
    except PeerError:
        raise
    except BaseException as error:
        found = watch.first_failure(error)
        if found is None and _is_broken_connection(error):
            found = "a process is gone without a word, as when it was killed"
        if found is None or not isinstance(error, Exception):
            raise
        raise PeerError(
            found, expected="all processes to go on", fix="see what that one says"
        ) from error
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if _is_together() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _is_together() else 1


def reports_to_user() -> bool:
    """Tell whether this process is the one that tells what goes on, before there is a group too."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def standalone() -> Iterator[None]:
    """While open, this process works as if there were no other; these wait for it."""
    global _is_alone
    _is_alone = True
    try:
        yield
    finally:
        _is_alone = False


_is_alone = False


def _is_together() -> bool:
    return dist.is_initialized() and not _is_alone


@contextmanager
def failing_together() -> Iterator[None]:
    """While open, what one process raises, the others raise at their next exchange.

    Else they would wait for one that does not come. Every exchange, and the end of this context,
    begins with a word of each process on how it does.

    Raises:
        PeerError: if another process raised an Exception.
        Stopped: if another process raised that.
    """
    global _pact
    if world_size() == 1:
        yield
        return
    _pact = pact = _Pact()
    try:
        yield
    except (Exception, Stopped) as error:
        pact.tell(error)
        raise
    else:
        with _exchange():
            pass
    finally:
        _pact = None


class _Pact:
    """What processes have agreed to tell each other before each exchange."""

    def __init__(self) -> None:
        self.is_over = False  # as all know

    def tell(self, error: BaseException | None = None) -> None:
        """Tell how this process does, unless it is over; a signal outweighs a failure.

        Raises:
            PeerError: if this process does well, and another one raised an Exception.
            Stopped: if another process raised that, and this one did not.
        """
        if self.is_over:
            return
        state = 0 if error is None else rank() + 1
        if isinstance(error, Stopped):
            state += world_size()
        worst = _largest(state)
        self.is_over = worst > 0
        if worst > world_size():
            if not isinstance(error, Stopped):
                raise Stopped
        elif worst > 0:
            told = " ".join(str(error).split()) or type(error).__name__
            reason = _broadcast(told.encode(), source=worst - 1) or b""
            if error is None:
                raise PeerError(
                    f"rank {worst - 1} failed: {reason.decode()}",
                    expected="all processes to go on",
                    fix="mend that one",
                )


_pact: _Pact | None = None
_is_exchanging = False
_postponed: BaseException | None = None


def raise_outside_collectives(error: BaseException) -> None:
    """Raise an error in a handler of signals: now, or as soon as an exchange that goes on is over.

    An exchange that is given up in one process would leave the others waiting. Where all give up
    what they do for another reason, nothing is raised.
    """
    global _postponed
    if _pact is not None and _pact.is_over:
        return
    if not _is_exchanging:
        raise error
    _postponed = error


@contextmanager
def _exchange() -> Iterator[None]:
    """Wrap each exchange of a group of processes."""
    global _is_exchanging, _postponed
    _is_exchanging = True
    try:
        if _pact is not None:
            _pact.tell()
        yield
    finally:
        _is_exchanging = False
        error, _postponed = _postponed, None
        if error is not None:
            raise_outside_collectives(error)


def is_main_process() -> bool:
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
    received = (
        [torch.empty_like(tensor) for _ in range(world_size())] if is_main_process() else None
    )
    with _exchange():
        dist.gather(tensor, received)
    return received or []


def all_reduce_sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of tensors over all processes, by one exchange for all of them.

    The sums are the same to the last bit in every process.

    Args:
        tensors: of the same shapes, dtypes and device kind in every process.
    """
    if world_size() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    with _exchange():
        dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [
        part.view(tensor.shape).to(tensor.dtype)
        for part, tensor in zip(parts, tensors, strict=True)
    ]


def broadcast_bool(decision: bool) -> bool:
    """Return the leader's decision to all processes."""
    if world_size() == 1:
        return decision
    flag = torch.tensor([int(decision)])
    with _exchange():
        dist.broadcast(flag, src=0)
    return bool(flag)


def all_reduce_max(value: int) -> int:
    """Return the largest of the processes' values to all of them."""
    if world_size() == 1:
        return value
    with _exchange():
        return _largest(value)


def _largest(value: int) -> int:
    found = torch.tensor([value])
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


def broadcast_bytes(content: bytes | None) -> bytes | None:
    """Return the leader's bytes, or its None, to all processes."""
    if world_size() == 1:
        return content
    with _exchange():
        return _broadcast(content, source=0)


def _broadcast(content: bytes | None, *, source: int) -> bytes | None:
    size = torch.tensor([-1 if content is None else len(content)])
    dist.broadcast(size, src=source)
    if size < 0:
        return None
    data = torch.empty([int(size)], dtype=torch.uint8)
    if rank() == source and content:
        data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(data, src=source)
    return data.numpy().tobytes()


def check_same_on_all_ranks(content: str, what: str) -> None:
    """Check that all processes have the same text, such as the options of a run.

    Raises:
        ConfigError: if one has another than the leader.
    """
    theirs = broadcast_bytes(content.encode())
    if all_reduce_max(int(theirs != content.encode())):
        raise ConfigError(
            f"processes with other {what}",
            expected="the same in all of them",
            fix="start all by the same line, on the same files",
        )


def _is_broken_connection(error: BaseException) -> bool:
    """Tell whether an exchange failed because the process at its other end has ended."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _has_agent() -> bool:
    """Tell whether `torchrun` holds the store; else the first process does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _connect(*, is_master: bool) -> Any:
    """Open a connection to the store through which the processes find each other."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=is_master,
        wait_for_workers=False,
        timeout=_JOINING,
    )


def _join(store: Any, number: int, num: int) -> str:
    """Meet the other processes of this attempt, and return its name, the same in all of them.

    After a restart by `torchrun` the store still holds what the processes before have written, and
    torch would connect to addresses where nobody is (2.13). So each process writes a name of its
    own; the first one proposes an attempt for the names that it reads, and only the living can
    confirm theirs.

    Raises:
        RuntimeError: if they do not meet within ten minutes.
    """
    own = uuid.uuid4().hex
    store.set(f"name/{number}", own)
    end_s = time.monotonic() + _JOINING.total_seconds()
    proposed = ""
    while time.monotonic() < end_s:
        if number == 0:
            keys = [f"name/{other}" for other in range(num)]
            names = [store.get(key).decode() if store.check([key]) else "" for key in keys]
            if all(names) and ",".join(names) != proposed:
                proposed = ",".join(names)
                store.set("attempt", proposed)
        elif store.check(["attempt"]):
            proposed = store.get("attempt").decode()
        names = proposed.split(",")
        if len(names) == num and names[number] == own:
            attempt = hashlib.blake2b(proposed.encode(), digest_size=8).hexdigest()
            store.set(f"{attempt}/beat/{number}", "0")  # the first sign of life confirms
            if store.check([f"{attempt}/beat/{other}" for other in range(num)]):
                return attempt
        time.sleep(0.05)
    raise RuntimeError("they did not come within ten minutes")


class _Watch:
    """A thread that gives signs of life, and ends this process when another one has none.

    Args:
        store: a connection of its own, as torch's is not made for two threads.
        attempt: of these processes, all of which have given a first sign.
        number: of this process.
        num: of all.
    """

    def __init__(self, store: Any, attempt: str, number: int, num: int) -> None:
        self._store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
        self._rank, self._world = number, num
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                dist.barrier()  # signs of life go on until all are done
        finally:
            self._is_over.set()
            self._thread.join()

    def first_failure(self, error: BaseException) -> str | None:
        """Tell of this process's failure, or return what has failed before in another one."""
        try:
            if self._store.add(f"{_FAILURE}/count", 1) > 1:
                return self._told()
            is_ours = isinstance(error, StyleganError)
            told = str(error) if is_ours else "".join(traceback.format_exception(error)).strip()
            self._store.set(_FAILURE, f"rank {self._rank} stopped: {told}")
        except RuntimeError:  # the store went with the leader
            return "the leader is gone"
        return None

    def _told(self) -> str:
        self._store.wait([_FAILURE], timedelta(seconds=10))
        return str(self._store.get(_FAILURE).decode())

    def _beat(self, count: int) -> None:
        self._store.set(f"beat/{self._rank}", str(count))

    def _watch(self) -> None:
        seen: dict[int, tuple[bytes, float]] = {}
        count, before_s = 0, time.monotonic()
        while not self._is_over.wait(BEAT_S):
            count += 1
            if time.monotonic() - before_s > 3 * BEAT_S:  # this process was suspended itself
                seen.clear()
            before_s = time.monotonic()
            try:
                self._beat(count)
                if self._store.check([_FAILURE]):
                    self._end(self._told())
                for other in range(self._world):
                    beat, now_s = self._store.get(f"beat/{other}"), time.monotonic()
                    if other not in seen or seen[other][0] != beat:
                        seen[other] = beat, now_s
                    elif now_s - seen[other][1] > SILENCE_S and other != self._rank:
                        self._end(f"rank {other} gave no sign of life for {SILENCE_S:.0f} s")
            except RuntimeError as error:
                if not self._is_over.is_set():
                    self._end(f"the leader's store is gone ({error})")

    def _end(self, why: str) -> None:
        """End this process: it may hang in an exchange that will never come about."""
        if self._is_over.wait(2 * BEAT_S):  # it learned of it by itself
            return
        logger.error("rank %d ends, as %s", self._rank, why)
        os._exit(1)
