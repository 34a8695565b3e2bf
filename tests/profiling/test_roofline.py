import time
from dataclasses import replace

import pytest
import torch

from stylegan.profiling import roofline
from stylegan.profiling.roofline import measure_layers
from stylegan.profiling.speed import Operations, measure_bandwidth
from stylegan.training.state import TrainState

pytestmark = pytest.mark.usefixtures("machine_measured_once")


@pytest.fixture
def state(run_config):
    return TrainState(run_config, torch.device("cpu"))


@pytest.fixture(scope="module")
def measured(run_config):
    """The layers of the tiny run and the rate of memory, measured once."""
    return measure_layers(TrainState(run_config, torch.device("cpu")), rounds=1)


@pytest.mark.slow
def test_layers_of_both_networks_come_in_their_order(state, measured):
    layers, rate = measured
    names = [f"{layer.network} {layer.name}" for layer in layers]
    assert names[:3] == ["G b4.conv1", "G b4.torgb", "G b8.conv0"]
    assert names[-1] == "D b4.conv"
    assert layers[0].shape == (state.config.batch, 6, 4, 4)
    assert rate > 1e8
    for layer in layers:
        for each in (layer.forward, layer.backward):
            assert each.seconds > 0
            assert each.roof_fraction == each.roof_s / each.seconds


def test_operations_add_up_to_those_of_synthesis(state, measured):
    generator = state.generator
    ws = torch.zeros(state.config.batch, generator.num_ws, generator.w_dim)
    with Operations() as counter, torch.no_grad():
        generator.synthesis(ws)
    layers, _ = measured
    of_g = [layer for layer in layers if layer.network == "G"]
    # the filters of the sum of RGB stand between layers
    assert 0.85 * counter.total < sum(layer.forward.flops for layer in of_g) < counter.total
    for layer in of_g:
        assert layer.backward.flops >= 1.5 * layer.forward.flops


def test_least_traffic_is_that_of_input_weights_and_output(measured):
    layers, _ = measured
    conv = next(layer for layer in layers if layer.network == "D" and layer.name == "b16.conv0")
    num, channels, side, _ = conv.shape
    features = num * channels * side**2 * 4
    weights = (channels * channels * 9 + channels) * 4
    assert conv.forward.num_bytes == 2 * features + weights
    assert conv.backward.num_bytes == 2 * (2 * features + weights)


def test_the_slower_of_products_and_memory_bounds_and_slow_layers_neither(state):
    rates = roofline._Device(peak_flops=1e9, bandwidth=1e6)
    assert rates.classify(2.5, flops=2 * 10**9, num_bytes=10**6).bound == "compute"
    assert rates.classify(2.5, flops=10**9, num_bytes=2 * 10**6).bound == "memory"
    slow = rates.classify(20.0, flops=10**9, num_bytes=2 * 10**6)
    assert slow.bound == "neither"
    assert slow.roof_fraction == 0.1


def test_a_layer_that_waits_is_reported_as_slow(state, monkeypatch):
    layer = state.generator.synthesis.get_submodule("b8.conv1")
    forward = layer.forward
    monkeypatch.setattr(
        layer, "forward", lambda *args, **options: (time.sleep(0.1), forward(*args, **options))[1]
    )
    layers, _ = measure_layers(state, rounds=1)
    slow = next(layer for layer in layers if layer.name == "b8.conv1" and layer.network == "G")
    assert slow.forward.seconds > 0.1
    assert slow.forward.bound == "neither"
    assert slow.backward.seconds < 0.1  # the pass before it does not count


def test_networks_stay_as_they_are(state):
    before = {name: each.clone() for name, each in state.generator.state_dict().items()}
    measure_layers(state, rounds=1)
    assert all(
        torch.equal(before[name], each) for name, each in state.generator.state_dict().items()
    )
    assert all(parameter.grad is None for parameter in state.generator.parameters())
    assert not any(module._forward_hooks for module in state.generator.modules())


def test_networks_with_labels_are_measured(run_config):
    generator = replace(run_config.generator, c_dim=3)
    discriminator = replace(run_config.discriminator, c_dim=3)
    data = replace(run_config.data, labels=True)
    config = replace(run_config, generator=generator, discriminator=discriminator, data=data)
    layers, _ = measure_layers(TrainState(config, torch.device("cpu")), rounds=1)
    assert {layer.network for layer in layers} == {"G", "D"}


def test_the_rate_of_memory_is_one_a_machine_can_have():
    assert 1e8 < measure_bandwidth(torch.device("cpu")) < 1e13
