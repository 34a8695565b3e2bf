"""One process is a group of one, and a group that cannot be made is told of."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from stylegan import distributed
from stylegan.errors import ConfigError


def test_one_process_leads_and_gathers_its_own():
    with distributed.process_group():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main_process()) == (
            0,
            1,
            True,
        )
        tensor = torch.arange(3)
        (gathered,) = distributed.gather(tensor)
        assert torch.equal(gathered, tensor)
        assert distributed.broadcast_bool(True)
        assert not distributed.broadcast_bool(False)


def test_a_group_that_cannot_be_made_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="rank 1 cannot join"), distributed.process_group():
        pass


def test_processes_meet_past_what_those_before_them_have_left():
    store = torch.distributed.HashStore()
    with ThreadPoolExecutor(6) as threads:

        def meet():
            joined = [threads.submit(distributed._join, store, number, 3) for number in range(3)]
            return {each.result(timeout=20) for each in joined}

        first = meet()
        second = meet()  # names, attempt and signs of life of the first are still there
    assert len(first) == len(second) == 1
    assert first != second


def test_nobody_meets_one_who_is_not_there(monkeypatch):
    store = torch.distributed.HashStore()
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(distributed._join, store, number, 2) for number in range(2)]
        assert len({each.result(timeout=20) for each in both}) == 1
    monkeypatch.setattr(distributed, "_JOINING", timedelta(seconds=0.5))
    with pytest.raises(RuntimeError, match="did not come"):
        distributed._join(store, 0, 2)  # the other one's name is there, but it does not confirm


def watched(monkeypatch, *, pause_s, other_lives):
    """Let a process watch another one, be suspended, and watch on; return what would end it."""
    store, ended, clock = torch.distributed.HashStore(), [], [0.0]
    monkeypatch.setattr(distributed, "BEAT_S", 0.02)
    monkeypatch.setattr(distributed, "SILENCE_S", 1.0)
    monkeypatch.setattr(distributed.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(distributed._Watch, "_end", lambda watch, why: ended.append(why))
    inner = torch.distributed.PrefixStore("attempt", store)
    inner.set("beat/0", "0")
    inner.set("beat/1", "0")
    watch = distributed._Watch(store, "attempt", 0, 2)
    try:
        time.sleep(0.2)
        clock[0] += pause_s
        time.sleep(0.2)
        for beat in range(1, 30):  # the other one wakes up, or does not
            if other_lives:
                inner.set("beat/1", str(beat))
            clock[0] += 0.05
            time.sleep(0.03)
    finally:
        watch._is_over.set()
        watch._thread.join()
    return ended


def test_who_was_suspended_itself_waits_for_the_others_to_wake(monkeypatch):
    assert watched(monkeypatch, pause_s=100.0, other_lives=True) == []


def test_who_gives_no_sign_of_life_is_given_up(monkeypatch):
    assert "rank 1 gave no sign of life" in watched(monkeypatch, pause_s=0.0, other_lives=False)[0]
