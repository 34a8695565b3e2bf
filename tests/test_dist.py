"""One process is a group of one, and a group that cannot be made is told of."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from stylegan import dist
from stylegan.errors import ConfigError


def test_one_process_leads_and_gathers_its_own():
    with dist.process_group():
        assert (dist.rank(), dist.world_size(), dist.is_leader()) == (0, 1, True)
        tensor = torch.arange(3)
        (gathered,) = dist.gather(tensor)
        assert torch.equal(gathered, tensor)
        assert dist.agree(True)
        assert not dist.agree(False)


def test_a_group_that_cannot_be_made_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="rank 1 cannot join"), dist.process_group():
        pass


def test_processes_meet_past_what_those_before_them_have_left():
    store = torch.distributed.HashStore()
    with ThreadPoolExecutor(6) as threads:

        def meet():
            joined = [threads.submit(dist._join, store, number, 3) for number in range(3)]
            return {each.result(timeout=20) for each in joined}

        first = meet()
        second = meet()  # names, attempt and signs of life of the first are still there
    assert len(first) == len(second) == 1
    assert first != second


def test_nobody_meets_one_who_is_not_there(monkeypatch):
    store = torch.distributed.HashStore()
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(dist._join, store, number, 2) for number in range(2)]
        assert len({each.result(timeout=20) for each in both}) == 1
    monkeypatch.setattr(dist, "_JOINING", timedelta(seconds=0.5))
    with pytest.raises(RuntimeError, match="did not come"):
        dist._join(store, 0, 2)  # the other one's name is there, but it does not confirm
