import dataclasses

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.models.base import num_parameters
from stylegan.models.registry import create
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    set_conv_form,
)

ARCHITECTURES = ["orig", "skip", "resnet"]


@pytest.mark.parametrize(
    ("name", "architecture", "generator", "discriminator"),
    [  # spec, section 7.1, at 1024x1024
        ("stylegan2-f", "skip", 30_370_060, None),
        ("stylegan2-f", "resnet", None, 29_012_513),
        ("stylegan2-e", "skip", 24_900_764, 23_087_249),
        ("stylegan2-e", "orig", 23_596_292, 23_077_137),
        ("stylegan2-e", "resnet", 24_557_316, 24_038_161),
    ],
)
def test_parameter_counts_at_1024(name, architecture, generator, discriminator):
    with torch.device("meta"):
        networks = create(name, 1024, architecture=architecture)
    if generator is not None:
        assert num_parameters(networks.generator) == generator
    if discriminator is not None:
        assert num_parameters(networks.discriminator) == discriminator


@pytest.mark.parametrize(
    ("resolution", "name", "generator", "discriminator"),
    [  # spec, section 7.3
        (256, "stylegan2-e", 24_767_458, 24_001_089),
        (256, "stylegan2-f", 30_034_338, 28_864_129),
        (64, "stylegan2-f", 27_032_600, 26_488_833),
        (32, "stylegan2-f", 21_523_475, 21_507_073),
    ],
)
def test_parameter_counts_at_other_resolutions(resolution, name, generator, discriminator):
    with torch.device("meta"):
        networks = create(name, resolution)
    assert num_parameters(networks.generator) == generator
    assert num_parameters(networks.discriminator) == discriminator


def test_conditional_parameter_counts():
    with torch.device("meta"):  # spec, section 7.3: 10 classes at 32x32
        networks = create("stylegan2-f", 32, c_dim=10)
    assert num_parameters(networks.generator) == 21_791_251
    assert num_parameters(networks.discriminator) == 23_876_096


@pytest.mark.parametrize("g", ARCHITECTURES)
@pytest.mark.parametrize("d", ARCHITECTURES)
def test_all_nine_pairs_run_and_train_every_parameter(g, d, generator_config):
    generator = Generator(dataclasses.replace(generator_config, architecture=g))
    discriminator = Discriminator(
        DiscriminatorConfig(resolution=16, channel_base=64, channel_max=6, architecture=d)
    )
    images = generator(torch.randn(4, 8))
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    logits = discriminator(images)
    assert logits.shape == (4, 1)
    logits.sum().backward()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("resolution", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_resolution_and_number_of_channels(resolution, channels):
    sizes = {"resolution": resolution, "img_channels": channels, "channel_base": 64}
    generator = Generator(GeneratorConfig(**sizes, channel_max=4, z_dim=4, w_dim=4))
    discriminator = Discriminator(DiscriminatorConfig(**sizes, channel_max=4))
    images = generator(torch.randn(2, 4))
    assert images.shape == (2, channels, resolution, resolution)
    assert generator.num_ws == {8: 4, 16: 6, 32: 8}[resolution]
    assert discriminator(images).shape == (2, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_grouped_convolutions_make_the_same_images(architecture):
    generator = Generator(
        GeneratorConfig(resolution=16, architecture=architecture, channel_base=64, channel_max=8)
    )
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.ones_(parameter)
    z = torch.randn(3, 512)
    images = generator(z)
    set_conv_form(generator, "grouped")
    # sums over 72 products in another order, through five layers
    torch.testing.assert_close(generator(z), images, rtol=1e-4, atol=1e-4)


def test_noise_modes(generator_config):
    generator = Generator(generator_config)
    torch.nn.init.ones_(generator.synthesis.b8.conv1.noise_strength)
    ws = generator.mapping(torch.randn(1, 8)).repeat(2, 1, 1)
    const = generator.synthesis(ws)
    assert torch.equal(const[0], const[1])
    none = generator.synthesis(ws, noise_mode="none")
    assert (const - none).abs().max() > 1e-3
    first = generator.synthesis(ws, noise_mode="random", generator=torch.Generator().manual_seed(1))
    again = generator.synthesis(ws, noise_mode="random", generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 1e-3  # each sample has its own
    with pytest.raises(ValueError, match="const, random or none"):
        generator.synthesis(ws, noise_mode="fresh")


def test_each_style_reaches_its_layers_only(generator_config):
    generator = Generator(generator_config)
    ws = generator.mapping(torch.randn(1, 8)).detach().clone().requires_grad_()
    x = generator.synthesis.b4(
        None, ws[:, 0:1], dtype=torch.float32, noise_mode="const", generator=None
    )
    (grad,) = torch.autograd.grad(x.square().sum(), ws)
    used = grad.abs().amax(dim=(0, 2)) > 0
    assert used.tolist() == [True, False, False, False, False, False]


def test_bfloat16_is_close_and_sums_rgb_in_float32(generator_config):
    generator = Generator(generator_config)
    z = torch.randn(4, 8)
    exact = generator(z)
    generator.compute_dtype = torch.bfloat16
    images = generator(z)
    assert images.dtype == torch.float32
    assert 0 < (images - exact).abs().max() < 0.1 * exact.abs().max()  # 8 bits, six layers


def test_float64_inputs_are_computed_in_float64(generator_config, discriminator_config):
    generator = Generator(generator_config)
    discriminator = Discriminator(discriminator_config)
    images = generator(torch.randn(2, 8, dtype=torch.float64))
    assert images.dtype == torch.float64
    assert discriminator(images).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "resolution 48; expected a power of two"),
        ({"resolution": 4}, "resolution 4; expected a power of two"),
        ({"resolution": 16, "architecture": "big"}, "one of orig, skip, resnet"),
        ({"resolution": 64, "channel_base": 32}, "channel_base 32"),
        ({"resolution": 16, "mapping_layers": 0}, "mapping_layers 0"),
        ({"resolution": 16, "img_channels": 0}, "img_channels 0"),
        ({"resolution": 16, "c_dim": -1}, "c_dim -1"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GeneratorConfig(**options)


def test_wrong_shapes_are_refused(generator_config, discriminator_config):
    with pytest.raises(ValueError, match=r"ws must be \[N, 6, w_dim\]"):
        Generator(generator_config).synthesis(torch.zeros(1, 5, 12))
    with pytest.raises(ValueError, match="images must be"):
        Discriminator(discriminator_config)(torch.zeros(1, 3, 8, 8))


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ConfigError, match="stylegan2-e, stylegan2-f"):
        create("stylegan9", 16)
    with pytest.raises(ConfigError, match="network option 'chanel_base'"):
        create("stylegan2-f", 16, chanel_base=3)


@pytest.mark.gpu
def test_cuda_images_are_within_two_levels_of_the_cpu(generator_config):
    generator = Generator(generator_config)
    z = torch.randn(4, 8)
    there = generator.cuda()(z.cuda()).cpu()
    assert (there - generator.cpu()(z)).abs().max() < 2 / 127.5
