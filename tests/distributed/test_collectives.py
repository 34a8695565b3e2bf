"""Collectives on two ranks: time limits, and ranks that work on their own."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
import torch
from stylegan import distributed
from stylegan.errors import Stopped

distributed.TIMEOUT_S, distributed.KEEP_ALIVE_S = 3.0, 0.2
case = sys.argv[1]
with distributed.process_group():
    rank = distributed.rank()
    if case == "alone":  # longer than the time limit, on one rank and then on the other
        for worker in (0, 1):
            if rank == worker:
                with distributed.keep_others_waiting():
                    time.sleep(5)
            assert distributed.all_reduce_max(rank) == 1
        total = distributed.all_reduce_sum([torch.tensor([1.0 + rank])])
        assert total[0].item() == 3
        assert distributed.broadcast_bytes(b"from 0" if rank == 0 else None) == b"from 0"
        assert distributed.broadcast_bytes(b"") == b""
        assert distributed.broadcast_bytes(None) is None
        assert [distributed.broadcast_bool(rank == 0), distributed.broadcast_bool(rank == 1)] == [
            True, False
        ]
        print("done", flush=True)
    elif case == "late":
        if rank == 1:
            time.sleep(30)
        distributed.all_reduce_max(0)
    elif case == "stop":
        for is_alone in (False, True):  # at once where it works on its own, else in the next vote
            reached = []
            try:
                with distributed.failing_on_all_ranks():
                    if rank == 1 and is_alone:
                        with distributed.keep_others_waiting():
                            time.sleep(1)
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
        print("done", flush=True)
    elif case == "together":
        for failing in (0, 1):
            try:
                with distributed.failing_on_all_ranks():
                    distributed.gather(torch.zeros(1))
                    if rank == failing:
                        raise ZeroDivisionError
                    distributed.gather(torch.zeros(1))
            except ZeroDivisionError:
                assert rank == failing
            except distributed.RankFailedError as error:
                assert rank != failing
                assert str(error) == f"rank {failing} failed"
        assert distributed.all_reduce_max(rank) == 1
        print("done", flush=True)
"""


def run(tmp_path, case):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(script), case),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.mark.parametrize("case", ["alone", "together", "stop"])
def test_ranks_wait_for_one_that_works_alone_and_fail_together(tmp_path, case):
    done = run(tmp_path, case)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 2


def test_a_rank_that_does_not_come_ends_the_job_in_the_time_limit(tmp_path):
    done = run(tmp_path, "late")
    assert done.returncode != 0
    assert "rank 0 lost the other ranks: one of them failed, or hangs for more than 3 s" in (
        done.stderr
    )
