"""Collectives on two ranks: time limits, and ranks that work on their own."""

import time

import pytest
import torch

import processes
from stylegan import distributed
from stylegan.errors import Stopped

TIMEOUT_S = 2.0


def alone():
    """Work for longer than the time limit, on one rank and then on the other."""
    rank = distributed.rank()
    for worker in (0, 1):
        if rank == worker:
            with distributed.keep_others_waiting():
                time.sleep(1.5 * TIMEOUT_S)
        assert distributed.all_reduce_max(rank) == 1
    (total,) = distributed.all_reduce_sum([torch.tensor([1.0 + rank])])
    assert total.item() == 3
    assert distributed.broadcast_bytes(b"from 0" if rank == 0 else None) == b"from 0"
    assert distributed.broadcast_bytes(b"") == b""
    assert distributed.broadcast_bytes(None) is None
    assert distributed.broadcast_bool(rank == 0)
    assert not distributed.broadcast_bool(rank == 1)


def late():
    """Come to the collective on one rank only."""
    if distributed.rank() == 1:
        time.sleep(15)
    distributed.all_reduce_max(0)


def stop():
    """Stop on rank 1: at once where it works on its own, else in the next vote."""
    rank = distributed.rank()
    for is_alone in (False, True):
        reached = []
        try:
            with distributed.failing_on_all_ranks():
                if rank == 1 and is_alone:
                    with distributed.keep_others_waiting():
                        time.sleep(0.5)
                        distributed.stop()
                elif rank == 1:
                    distributed.stop()
                reached.append("vote")
                distributed.gather(torch.zeros(1))
                reached.append("after")
        except Stopped:
            assert reached == ([] if rank == 1 and is_alone else ["vote"])
        else:
            raise AssertionError
    assert distributed.all_reduce_max(rank) == 1


def fail_on(failing):
    """Exchange tensors; one rank fails between the exchanges."""
    with distributed.failing_on_all_ranks():
        distributed.gather(torch.zeros(1))
        if distributed.rank() == failing:
            raise ZeroDivisionError("planted")
        distributed.gather(torch.zeros(1))


def together():
    """Fail on one rank, and then on the other."""
    rank = distributed.rank()
    for failing in (0, 1):
        error = ZeroDivisionError if rank == failing else distributed.RankFailedError
        with pytest.raises(error, match=f"rank {failing} failed|planted"):
            fail_on(failing)
    assert distributed.all_reduce_max(rank) == 1


def in_group(case):
    """Be a rank with short time limits."""
    distributed.TIMEOUT_S, distributed.KEEP_ALIVE_S = TIMEOUT_S, 0.2
    with distributed.process_group():
        case()
    return 0


@pytest.mark.parametrize("case", [alone, together, stop])
def test_ranks_wait_for_one_that_works_alone_and_fail_together(tmp_path, case):
    processes.run(in_group, case, folder=tmp_path, num=2)


def test_a_rank_that_does_not_come_fails_the_others_in_the_time_limit(tmp_path):
    group = processes.start(in_group, late, folder=tmp_path, num=2)
    group.processes[0].join(12)
    assert group.processes[0].exitcode == 1
    group.kill(1, 9)
    group.join()
    assert "rank 0 lost the other ranks: one of them failed, or hangs for more than 2 s" in (
        group.output
    )
