import pytest
import torch

import stylegan
from stylegan.models.noise import noise_maps, store_noise, synthesize

PRESETS = ["stylegan-e", "stylegan-f", "stylegan2-b", "stylegan2-d", "stylegan2-f", "msg-stylegan2"]


def noisy(preset):
    generator = stylegan.create(preset, 16, channel_base=64, channel_max=8).generator.eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return generator.requires_grad_(False)


def sides(generator):
    return [values.shape[-1] for values in noise_maps(generator).values()]


@pytest.mark.parametrize("preset", PRESETS)
def test_maps_stand_coarsest_first_and_are_the_network_s_own(preset):
    generator = noisy(preset)
    assert sides(generator) == sorted(sides(generator))
    assert set(sides(generator)) == {4, 8, 16}
    for layer, values in noise_maps(generator).items():
        assert values is generator.synthesis.get_submodule(layer).noise_const


def test_networks_without_noise_have_no_maps():
    for preset in ("progan", "stylegan-d"):
        assert noise_maps(stylegan.create(preset, 16, channel_base=64).generator) == {}


@pytest.mark.parametrize("preset", PRESETS)
def test_exchanged_noise_acts_as_stored_noise_does_and_leaves_the_network_alone(preset):
    generator = noisy(preset)
    ws = generator.mapping(torch.randn(2, generator.z_dim))
    before = generator.synthesis(ws)
    other = {layer: torch.randn_like(values) for layer, values in noise_maps(generator).items()}
    exchanged = synthesize(generator, ws, noise=other)
    assert torch.equal(generator.synthesis(ws), before)
    assert torch.equal(synthesize(generator, ws, noise={}), before)
    store_noise(generator, other)
    assert torch.equal(generator.synthesis(ws), exchanged)
    assert not torch.allclose(exchanged, before)


@pytest.mark.parametrize("preset", PRESETS)
def test_each_image_can_have_noise_of_its_own(preset):
    generator = noisy(preset)
    ws = generator.mapping(torch.randn(2, generator.z_dim))
    noise = {
        layer: torch.randn(2, 1, *values.shape) for layer, values in noise_maps(generator).items()
    }
    together = synthesize(generator, ws, noise=noise)
    for row in range(2):
        own = {layer: values[row, 0] for layer, values in noise.items()}
        alone = synthesize(generator, ws[row : row + 1], noise=own)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", ["stylegan-f", "stylegan2-f"])
def test_gradients_reach_noise_and_styles(preset):
    generator = noisy(preset)
    ws = generator.mapping(torch.randn(1, generator.z_dim)).detach().requires_grad_()
    noise = {
        layer: values.clone()[None, None].requires_grad_()
        for layer, values in noise_maps(generator).items()
    }
    image = synthesize(generator, ws, noise=noise)
    # not the sum: instance normalization keeps it
    weights = torch.randn(image.shape)
    gradients = torch.autograd.grad((image * weights).sum(), [ws, *noise.values()])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_layers_and_sizes_that_are_not_there_are_refused():
    generator = noisy("stylegan2-f")
    with pytest.raises(KeyError, match="b2"):
        synthesize(
            generator, torch.zeros(1, generator.num_ws, 512), noise={"b2": torch.zeros(2, 2)}
        )
    before = {layer: values.clone() for layer, values in noise_maps(generator).items()}
    with pytest.raises(ValueError, match=r"b8.conv0 must be \[8, 8\]"):
        store_noise(generator, {"b4.conv1": torch.zeros(4, 4), "b8.conv0": torch.zeros(4, 4)})
    after = noise_maps(generator)
    assert all(torch.equal(after[layer], values) for layer, values in before.items())
