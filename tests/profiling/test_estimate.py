"""What a dry run says of the memory of a run."""

from dataclasses import replace

import pytest

from stylegan import distributed
from stylegan.profiling.estimate import estimate


def with_batch(config, batch, batch_gpu=None):
    return replace(config, batch=batch, runtime=replace(config.runtime, batch_gpu=batch_gpu))


def test_activations_are_those_of_what_is_computed_at_once(run_config):
    whole = estimate(with_batch(run_config, 16)).activation_bytes
    quarter = estimate(with_batch(run_config, 4)).activation_bytes
    assert quarter == pytest.approx(whole / 4, rel=0.1)  # weights are kept, too
    assert estimate(with_batch(run_config, 16, batch_gpu=4)).activation_bytes == quarter


def test_processes_share_the_activations_of_a_batch(run_config, monkeypatch):
    alone = estimate(with_batch(run_config, 8))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shared = estimate(with_batch(run_config, 16))
    assert shared == alone
