import pytest
import torch

import stylegan
from stylegan.errors import ConfigError
from stylegan.latent.render import render
from stylegan.latent.tune import TuneConfig, tune_generator
from stylegan.models.noise import noise_maps
from stylegan.perceptual.discriminator import DiscriminatorDistance


@pytest.fixture
def networks():
    torch.manual_seed(0)
    networks = stylegan.create("stylegan2-e", 16, channel_base=128, z_dim=16, w_dim=16)
    networks.generator.eval().requires_grad_(False)
    return networks


def tuned(networks, *, locality_weight=0.1, num_steps=40):
    generator = networks.generator
    ws = generator.mapping(torch.randn(1, 16, generator=torch.Generator().manual_seed(1)))
    noise = {layer: torch.randn_like(each) for layer, each in noise_maps(generator).items()}
    stream = torch.Generator().manual_seed(2)
    target = torch.randint(0, 256, [3, 2, 2], generator=stream, dtype=torch.uint8)
    target = target.repeat_interleave(8, 1).repeat_interleave(8, 2)
    steps = []
    found = tune_generator(
        generator,
        ws,
        target=target,
        noise=noise,
        distance=DiscriminatorDistance(networks.discriminator),
        config=TuneConfig(num_steps=num_steps, learning_rate=3e-3, locality_weight=locality_weight),
        progress=lambda *_: steps.append(1),
    )
    assert len(steps) == num_steps
    return found, ws, noise


def test_a_tuned_copy_makes_the_picture_and_the_network_stays(networks):
    before = {name: value.clone() for name, value in networks.generator.state_dict().items()}
    start, _, _ = tuned(networks, num_steps=1)
    found, ws, noise = tuned(networks)
    assert found.psnr > start.psnr + 2
    after = networks.generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    # the copy holds the noise, so that it needs nothing but the latents
    assert torch.equal(next(iter(render(found.generator, ws))), found.image)
    stored = noise_maps(found.generator)
    assert all(torch.equal(stored[layer], values) for layer, values in noise.items())
    assert not any(parameter.requires_grad for parameter in found.generator.parameters())
    mapping = networks.generator.mapping.state_dict()
    for name, value in found.generator.mapping.state_dict().items():
        assert torch.equal(value, mapping[name])


def test_what_must_not_change_is_seen_at_the_distance_that_is_asked_for(networks):
    seen = []
    networks.generator.synthesis.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])  # copies of the network keep it
    )
    _, ws, _ = tuned(networks, num_steps=3)
    lengths = [(each - ws).square().sum(dim=2).mean().sqrt().item() for each in seen]
    away = [length for length in lengths if length > 0]
    assert away == pytest.approx([30.0] * 6)  # of the network as it was and the tuned one


@pytest.mark.slow
def test_locality_keeps_other_images(networks):
    change = {}
    others = networks.generator.mapping(torch.randn(16, 16))
    for weight in (0.0, 10.0):
        found, _, noise = tuned(networks, locality_weight=weight)
        stored = noise_maps(networks.generator)
        same = {layer: stored[layer].clone() for layer in noise}
        for layer, values in same.items():
            noise_maps(found.generator)[layer].copy_(values)
        moved = found.generator.synthesis(others) - networks.generator.synthesis(others)
        change[weight] = moved.square().mean().item()
    assert change[10.0] < 0.7 * change[0.0]


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"locality_weight": -1.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        TuneConfig(**options)
