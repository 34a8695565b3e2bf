"""Blocks that torch.compile has compiled train as the plain ones do."""

from dataclasses import replace

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.nn import compiled
from stylegan.nn.compiled import check_compiler
from stylegan.training.configure import configure
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

# of torch itself, while it compiles
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def compiler():
    try:
        check_compiler(CPU)
    except ConfigError as error:
        pytest.skip(str(error))
    yield
    torch._dynamo.reset()


def trained(config, *, compile, iterations=2):
    runtime = replace(config.runtime, compile=compile)
    state = TrainState(replace(config, runtime=runtime), CPU)
    side, channels = config.generator.resolution, config.generator.img_channels
    reals = torch.randn(
        config.batch, channels, side, side, generator=torch.Generator().manual_seed(0)
    )
    return state, [train_step(state, reals) for _ in range(iterations)]


def assert_alike(config):
    torch._dynamo.reset()  # else code for networks of before, alike, is taken
    torch._dynamo.utils.counters.clear()
    _, expected = trained(config, compile=False)
    assert not torch._dynamo.utils.counters["frames"]
    state, found = trained(config, compile=True)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]
    for now, before in zip(found, expected, strict=True):
        assert now.keys() == before.keys()
        for name, value in now.items():
            torch.testing.assert_close(value, before[name], rtol=1e-3, atol=1e-4, msg=name)
    return state


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_steps_with_path_lengths_and_r1_are_those_of_plain_blocks(run_config):
    smallest = {"resolution": 8, "channel_base": 32, "channel_max": 4}
    generator = replace(run_config.generator, **smallest)
    discriminator = replace(run_config.discriminator, **smallest)
    state = assert_alike(replace(run_config, generator=generator, discriminator=discriminator))
    assert not any("_orig_mod" in name for name in state.generator.state_dict())


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("preset", "precision"),
    [
        ("progan", "fp32"),
        ("stylegan-f", "fp32"),
        ("stylegan2-c", "fp32"),
        ("stylegan2-f", "fp32"),
        ("msg-stylegan2", "fp32"),
    ],
)
def test_every_family_compiles(preset, precision):
    options = {"batch": 4, "channel_base": 64, "channel_max": 8, "precision": precision}
    config, _ = configure(preset, options, resolution=16)
    assert_alike(replace(config, growth=None))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_regularizers_in_the_main_losses_run_uncompiled(run_config):
    loss = replace(run_config.loss, r1_interval=None, pl_interval=None)
    assert_alike(replace(run_config, loss=loss))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_compiled_blocks_compute_again_what_they_do_not_keep(run_config):
    runtime = replace(run_config.runtime, activation_checkpointing=True)
    assert_alike(replace(run_config, runtime=runtime))


def test_a_compiler_that_is_missing_is_reported_at_the_start(run_config, monkeypatch):
    def fail(function):
        raise RuntimeError("no g++\nand more")

    monkeypatch.setattr(compiled.torch, "compile", fail)
    runtime = replace(run_config.runtime, compile=True)
    with pytest.raises(ConfigError, match=r"torch.compile does not work here \(no g\+\+\); inst"):
        TrainState(replace(run_config, runtime=runtime), CPU)
