"""Every preset at a toy size: its losses, its regularizers, growing, exact resume, saving."""

import dataclasses
import io

import pytest
import torch

from stylegan.losses.objective import (
    GeneratorInputs,
    discriminator_input,
    discriminator_loss,
    generator_loss,
    path_length_loss,
    r1_loss,
    sampled_path_lengths,
)
from stylegan.models import io as native
from stylegan.training.configure import configure
from stylegan.training.presets import PRESETS
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

CPU = torch.device("cpu")
SIZES = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2}
# From 4x4, without stages in between: at images 4 and 12 it fades, at 8 and from 16 on it does not.
GROWTH = [
    "growth.initial_resolution=4",
    "growth.train_kimg=0",
    "growth.fade_kimg=0.008",
    "growth.batches=none",
    "growth.lrs=8:0.002",
]


@pytest.fixture(params=PRESETS)
def config(request):
    """The preset's run with tiny networks of 16x16, in batches of 4, growing within 16 images."""
    options = {"batch": 4, "channel_base": 64, "channel_max": 8}
    config, _ = configure(request.param, options, resolution=16)
    generator = dataclasses.asdict(config.generator)
    overrides = [
        f"generator.{field}={size}" for field, size in SIZES.items() if generator.get(field, 0) > 0
    ]
    return config.with_overrides(*overrides, *(GROWTH if config.growth is not None else []))


def reals_for(state):
    stream = torch.Generator().manual_seed(state.nimg)
    side = state.stage.resolution
    return torch.randn(4, 3, side, side, generator=stream)


def reaches_every_parameter(loss, network):
    """Differentiate, and tell whether nothing of the current level is left out."""
    grads = torch.autograd.grad(loss.total, [*network.parameters()], allow_unused=True)
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)
    return all(grad is not None for grad in grads)


def test_every_preset_has_finite_gradients_of_all_its_terms(config):
    state = TrainState(config, CPU)
    for _, network in state.networks.items():
        network.lod = 0.0
    generator, discriminator, loss = state.generator, state.discriminator, config.loss
    draw = GeneratorInputs(
        z=torch.randn(4, 8), z_mix=torch.randn(4, 8), crossover=1, noise=torch.Generator()
    )
    reals = torch.randn(4, 3, 16, 16)
    fakes = discriminator_input(generator, generator.mapping(draw.z), draw)
    main = generator_loss(generator, discriminator, draw, config=loss)
    # of the networks that grow, those layers of RGB that belong to smaller levels take no part
    is_whole = config.growth is None
    assert reaches_every_parameter(main, generator) >= is_whole
    main = discriminator_loss(discriminator, reals, fakes, config=loss, alpha=torch.rand(4))
    assert reaches_every_parameter(main, discriminator) >= is_whole
    if loss.gamma > 0:
        reaches_every_parameter(r1_loss(discriminator, reals, config=loss), discriminator)
        assert ("r1/penalty" in main.terms) == (loss.r1_interval is None)
    else:
        assert main.terms["gradient_penalty"] > 0
    if loss.pl_weight > 0:
        noise, mean = torch.randn(4, 3, 16, 16), torch.zeros([])
        lengths = sampled_path_lengths(generator, draw, draw_noise=lambda _: noise)
        paths, _ = path_length_loss(lengths, pl_mean=mean, config=loss)
        reaches_every_parameter(paths, generator)


def test_every_preset_trains_resumes_exactly_and_is_saved(config, tmp_path):
    state, lods = TrainState(config, CPU), []
    half = None
    for _ in range(5):
        lods.append(state.stage.lod)
        train_step(state, reals_for(state))
        if state.nimg == 12:
            half = io.BytesIO()
            torch.save(state.state_dict(), half)
    assert lods == ([2, 1.5, 1, 0.5, 0] if config.growth is not None else [0] * 5)
    assert state.skipped == 0

    half.seek(0)
    resumed = TrainState(config, CPU)
    resumed.load_state_dict(torch.load(half, weights_only=True))
    while resumed.nimg < 20:
        train_step(resumed, reals_for(resumed))
    same = {
        name: [value for _, value in sorted(network.state_dict().items())]
        for name, network in state.networks.items()
    }
    for name, network in resumed.networks.items():
        for (key, value), expected in zip(
            sorted(network.state_dict().items()), same[name], strict=True
        ):
            assert torch.equal(value, expected), f"{name}.{key}"
    for ours, theirs in (
        (state.optimizer_g, resumed.optimizer_g),
        (state.optimizer_d, resumed.optimizer_d),
    ):
        moments, others = ours.state_dict()["state"], theirs.state_dict()["state"]
        assert moments.keys() == others.keys()
        for index in moments:
            assert torch.equal(moments[index]["exp_avg_sq"], others[index]["exp_avg_sq"])

    native.save(state.networks, tmp_path / "model")
    loaded = native.load(tmp_path / "model")
    for name, network in state.networks.items():
        other = getattr(loaded, name)
        assert other.config == network.config
        assert other.lod == network.lod
        tensors = other.state_dict()
        assert tensors.keys() == network.state_dict().keys()
        assert all(torch.equal(value, tensors[key]) for key, value in network.state_dict().items())
