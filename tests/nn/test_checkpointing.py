import pytest
import torch

import stylegan
from stylegan.losses.objective import (
    GeneratorInputs,
    LossConfig,
    generator_loss,
    path_length_loss,
    r1_loss,
    sampled_path_lengths,
)
from stylegan.microbatch import BatchSlice, GroupGenerators

PRESETS = ["progan", "stylegan-f", "stylegan2-f", "stylegan2-d"]


def make(preset, resolution=16):
    torch.manual_seed(0)
    widths = {"z_dim": 16} if preset == "progan" else {"z_dim": 16, "w_dim": 16}
    networks = stylegan.create(preset, resolution, channel_base=128, channel_max=16, **widths)
    for _, network in networks.items():
        network.double()
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.3)
    return networks


def gradients(networks):
    generator, discriminator, config = networks.generator, networks.discriminator, LossConfig()
    stream = torch.Generator().manual_seed(1)
    part = BatchSlice.whole(4, group_size=2)
    noise = GroupGenerators(purpose="n", seed=0, nimg=0, device=torch.device("cpu"), rows=part)
    z = torch.randn(4, generator.z_dim, generator=stream).double()
    draw = GeneratorInputs(z=z, noise=noise)
    directions = torch.randn(4, 3, 16, 16, generator=stream).double()
    reals = torch.randn(4, 3, 16, 16, generator=stream).double()
    losses = [
        (generator_loss(generator, discriminator, draw, config=config).total, generator),
        (r1_loss(discriminator, reals, config=config).total, discriminator),
    ]
    if generator.num_ws > 1:
        lengths = sampled_path_lengths(generator, draw, draw_noise=lambda _: directions)
        loss, _ = path_length_loss(lengths, pl_mean=torch.zeros([]).double(), config=config)
        losses.append((loss.total, generator))
    return [
        grad
        for total, network in losses
        for grad in torch.autograd.grad(total, [*network.parameters()], allow_unused=True)
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_are_the_same_with_noise_and_of_second_order(preset):
    networks = make(preset)
    expected = gradients(networks)
    for _, network in networks.items():
        network.activation_checkpointing = True
    found = gradients(networks)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_less_is_kept_for_the_backward_pass(preset):
    networks = make(preset, 64)
    kept = []
    for is_enabled in (False, True):
        for _, network in networks.items():
            network.activation_checkpointing = is_enabled
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.setdefault(t.data_ptr(), t) is None or t, lambda t: t
        ):
            z = torch.randn(4, networks.generator.z_dim).double()
            with torch.no_grad():
                ws = networks.generator.mapping(z)
            networks.discriminator(networks.generator.synthesis(ws)).sum()
        parameters = {p.data_ptr() for _, each in networks.items() for p in each.parameters()}
        kept.append(sum(t.numel() for key, t in sizes.items() if key not in parameters))
    assert kept[1] < 0.7 * kept[0]
