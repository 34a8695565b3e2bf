"""One process is a group of one, and a group that cannot be made is told of."""

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
