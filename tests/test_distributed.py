"""One process is a group of one, and a group that cannot be formed is reported in one line."""

import threading

import pytest
import torch

from stylegan import distributed
from stylegan.errors import ConfigError, PeerError, Stopped


def test_one_process_is_rank_0_and_gathers_its_own():
    with distributed.process_group():
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.is_main_process()
        tensor = torch.arange(3)
        (gathered,) = distributed.gather(tensor)
        assert torch.equal(gathered, tensor)
        assert distributed.broadcast_bool(True)
        assert not distributed.broadcast_bool(False)
        assert distributed.all_reduce_max(-3) == -3
        assert distributed.broadcast_bytes(b"content") == b"content"


def test_a_group_that_cannot_be_formed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="rank 1 cannot join"), distributed.process_group():
        pass


def test_a_stop_in_one_process_raises_at_once():
    with pytest.raises(Stopped):
        distributed.stop()


def test_a_broken_connection_is_a_peer_error_in_one_line():
    message = r"rank 0 lost the other ranks.*\(reset\)$"
    with pytest.raises(PeerError, match=message), distributed._reporting_lost_ranks():
        raise RuntimeError("reset\nsecond line")


def test_keeping_others_waiting_starts_no_thread_in_one_process():
    before = threading.active_count()
    with distributed.keep_others_waiting():
        assert threading.active_count() == before
