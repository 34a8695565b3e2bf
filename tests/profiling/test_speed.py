import time
from dataclasses import replace

import pytest
import torch

from stylegan.models.registry import build_generator, configs_for
from stylegan.profiling.speed import Operations, PhaseTimer, measure, measure_peak_flops
from stylegan.training.state import TrainState

pytestmark = pytest.mark.usefixtures("machine_measured_once")


@pytest.fixture(scope="module")
def speed(run_config):
    return measure(run_config, rounds=1)


def test_each_phase_is_timed_and_counted(speed, run_config):
    assert list(speed.phases) == ["sample", "G", "path_length", "D", "R1", "iteration"]
    for name, phase in speed.phases.items():
        halved = name == "path_length"  # loss.pl_batch_shrink
        assert phase.num == run_config.batch // (2 if halved else 1)
        assert phase.seconds > 0
        assert phase.mfu(speed.peak_flops) > 0
    assert speed.peak_bytes > 1e6


def test_the_iteration_has_its_regularizers_in_lazy_proportions(speed, run_config):
    flops = {name: phase.flops for name, phase in speed.phases.items()}
    loss = run_config.loss
    regularizers = flops["path_length"] // loss.pl_interval + flops["R1"] // loss.r1_interval
    assert flops["iteration"] == flops["G"] + flops["D"] + regularizers
    # forward and back of G and D, of which D's weights get no gradient: 3 G + 2 D
    assert 2 * flops["sample"] < flops["G"] < 6 * flops["sample"]


def test_regularizers_in_the_main_losses_are_no_phases(run_config):
    loss = replace(run_config.loss, r1_interval=None, pl_weight=0.0, pl_interval=None)
    phases = measure(replace(run_config, loss=loss), rounds=1).phases
    assert list(phases) == ["sample", "G", "D", "iteration"]


def test_regularizers_of_every_iteration_count_once(run_config):
    loss = replace(run_config.loss, r1_interval=1, pl_interval=1)
    phases = measure(replace(run_config, loss=loss), rounds=1).phases
    assert list(phases) == ["sample", "G", "path_length", "D", "R1", "iteration"]
    parts = ("G", "path_length", "D", "R1")
    assert phases["iteration"].flops == sum(phases[name].flops for name in parts)
    # each was timed in both iterations, and the whole has the later ones
    assert phases["iteration"].seconds < 2 * sum(phases[name].seconds for name in parts)


def test_slow_work_is_reported_as_slow(run_config, monkeypatch):
    bench = PhaseTimer(TrainState(run_config, torch.device("cpu")))
    sample = bench.sample
    monkeypatch.setattr(bench, "sample", lambda: (time.sleep(0.2), sample()))
    bench.round()
    assert bench.phases()["sample"].seconds > 0.2


@pytest.mark.parametrize(("resolution", "gflop"), [(32, 8.0), (64, 32.3)])
def test_operations_of_the_published_generators(resolution, gflop):  # spec, section 7.3
    family, config, _ = configs_for("stylegan2-f", resolution)
    with torch.device("meta"), Operations() as counter:
        generator = build_generator(family, config)
        generator.synthesis(torch.empty(1, generator.num_ws, generator.w_dim))
    # the border that upsampling convolutions add counts with small images
    assert counter.total / 1e9 == pytest.approx(gflop, rel=0.05)


def test_the_rate_of_matrix_products_is_one_a_machine_can_have():
    rate = measure_peak_flops(torch.device("cpu"), torch.float32)
    assert 1e9 < rate < 1e14
