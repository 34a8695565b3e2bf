import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.errors import ConfigError
from stylegan.models.base import num_parameters
from stylegan.models.registry import create
from stylegan.models.stylegan import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)
from stylegan.nn.adain import ConstantInput, DenseInput
from stylegan.ops.box import downsample_box
from stylegan.ops.fir import BLUR_TAPS, filter2d, fir_kernel
from stylegan.ops.normalize import minibatch_stddev, pixel_norm

SMALL = {"resolution": 8, "channel_base": 64, "channel_max": 6}


def tiny(**options):
    return Generator(GeneratorConfig(**SMALL | {"z_dim": 5, "w_dim": 7} | options))


def noisy(generator):
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.ones_(parameter)
    return generator


@pytest.mark.parametrize(
    ("name", "generator"),
    [  # spec 3.1, 4.3; C: F's without noise, with B's dense layer for the constant
        ("stylegan-b", 23_079_115),
        ("stylegan-f", 26_219_627),
        ("stylegan2-a", 26_219_627),
    ],
)
def test_parameter_counts_at_1024(name, generator):
    with torch.device("meta"):
        networks = create(name, 1024)
    assert num_parameters(networks.generator) == generator
    assert num_parameters(networks.discriminator) == 23_087_249
    assert networks.generator.num_ws == (1 if name == "stylegan-b" else 18)


def test_letters_differ_as_table_1_says():
    def parts(letter):
        with torch.device("meta"):
            names = create(f"stylegan-{letter}", 16).generator.state_dict()
        return {name.rpartition(".")[2] if "affine" not in name else "affine" for name in names}

    common = {"weight", "bias", "w_avg"}
    assert parts("b") == common
    assert parts("c") == common | {"affine"}
    assert parts("d") == common | {"affine", "const"}
    assert parts("e") == common | {"affine", "const", "noise_strength", "noise_const"}
    assert parts("f") == parts("e")


def test_letters_start_as_table_1_says():
    with torch.device("meta"):
        inputs = {
            letter: create(f"stylegan-{letter}", 16).generator.synthesis.b4.input
            for letter in "bcdef"
        }
    kinds = {letter: type(layer) for letter, layer in inputs.items()}
    assert kinds == dict.fromkeys("bc", DenseInput) | dict.fromkeys("def", ConstantInput)


def test_b_takes_the_normalized_latent_for_w():
    generator = create("stylegan-b", 16).generator
    z = torch.randn(2, 512)
    assert torch.equal(generator.mapping(z), pixel_norm(z)[:, None])


def test_names_of_the_parameters():
    names = tiny(mapping_layers=2).state_dict().keys()
    layer = ["weight", "bias", "noise_strength", "noise_const", "affine.weight", "affine.bias"]
    expected = {"mapping.w_avg"}
    for i in range(2):
        expected |= {f"mapping.fc{i}.weight", f"mapping.fc{i}.bias"}
    for r, first in ((4, "input"), (8, "conv0")):
        expected |= {f"synthesis.b{r}.{first}.{part}" for part in layer}
        expected |= {f"synthesis.b{r}.conv1.{part}" for part in layer}
        expected |= {f"synthesis.b{r}.torgb.weight", f"synthesis.b{r}.torgb.bias"}
    expected ^= {"synthesis.b4.input.weight", "synthesis.b4.input.const"}
    assert names == expected


def test_w_is_the_mapping_of_the_first_papers():
    """He's sqrt(2) in the weight, not in the activation."""
    generator = tiny(mapping_layers=1)
    torch.nn.init.normal_(generator.mapping.fc0.bias, std=100)
    z = torch.randn(2, 5)
    product = pixel_norm(z) @ generator.mapping.fc0.weight.t()
    w = product * (0.01 * math.sqrt(2 / 5)) + generator.mapping.fc0.bias * 0.01
    torch.testing.assert_close(generator.mapping(z)[:, 0], F.leaky_relu(w, 0.2))


def test_each_style_reaches_its_layer_only():
    generator = tiny()
    ws = generator.mapping(torch.randn(1, 5)).detach().clone()
    layers = [
        generator.synthesis.b4.input,
        generator.synthesis.b4.conv1,
        generator.synthesis.b8.conv0,
        generator.synthesis.b8.conv1,
    ]
    seen = {}
    for index, layer in enumerate(layers):
        layer.affine.register_forward_pre_hook(
            lambda _, inputs, index=index: seen.__setitem__(index, inputs[0])
        )
    ws += torch.arange(4)[:, None]
    generator.synthesis(ws)
    assert all(torch.equal(seen[index], ws[:, index]) for index in range(4))


def test_styles_of_larger_levels_are_not_used():
    generator = tiny(resolution=16)
    generator.lod = 1
    ws = generator.mapping(torch.randn(2, 5))
    other = torch.cat([ws[:, :4], torch.randn(2, 2, 7)], dim=1)
    # not equal to the bit: a product of an expanded w may take another kernel than one of a copy
    torch.testing.assert_close(
        generator.synthesis(ws), generator.synthesis(other), atol=1e-5, rtol=1e-5
    )


def test_noise_modes():
    generator = noisy(tiny())
    ws = generator.mapping(torch.randn(1, 5)).repeat(2, 1, 1)
    const = generator.synthesis(ws)
    # the rows of a batch may be rounded differently, which depends on the processor
    torch.testing.assert_close(const[0], const[1], atol=1e-5, rtol=1e-5)
    assert (const - generator.synthesis(ws, noise_mode="none")).abs().max() > 1e-3
    draw = [
        generator.synthesis(ws, noise_mode="random", generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    ]
    assert torch.equal(draw[0], draw[1])
    assert (draw[0][0] - draw[0][1]).abs().max() > 1e-3  # each sample has its own
    with pytest.raises(ValueError, match="const, random or none"):
        generator.synthesis(ws, noise_mode="fresh")


def test_without_noise_the_mode_changes_nothing():
    generator, z = tiny(noise=False), torch.randn(2, 5)
    assert torch.equal(generator(z, noise_mode="random"), generator(z, noise_mode="none"))


def test_truncation():
    generator, z = tiny(), torch.randn(2, 5)
    generator.update_w_avg(generator.mapping(torch.randn(50, 5)), 0.0)
    ws, mean = generator.mapping(z), generator.mapping.w_avg
    half = generator.mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + mean) / 2)
    assert torch.equal(half[:, 2:], ws[:, 2:])
    images = generator(z, truncation_psi=0.0)
    torch.testing.assert_close(images[0], images[1])


def test_labels_choose_among_the_outputs():
    generator = tiny(c_dim=3)
    discriminator = Discriminator(DiscriminatorConfig(**SMALL, c_dim=3))
    z, c = torch.randn(4, 5), torch.eye(3)[[0, 1, 2, 0]]
    assert generator.mapping.embed.weight.shape == (5, 3)
    images = generator(z, c)
    assert (images - generator(z, c.flip(1))).abs().max() > 1e-4
    logits = torch.stack(
        [discriminator(images, one.expand(4, -1)).squeeze(1) for one in torch.eye(3)], dim=1
    )
    expected = logits.gather(1, torch.tensor([[0], [1], [2], [0]]))
    assert torch.equal(discriminator(images, c), expected)
    with pytest.raises(ValueError, match=r"c must be \[N, 3\], got None"):
        discriminator(images)


def test_the_discriminator_is_its_formula():
    discriminator = Discriminator(DiscriminatorConfig(**SMALL))
    for parameter in discriminator.parameters():
        torch.nn.init.normal_(parameter)

    def conv(layer, x):
        gain = 2 / (layer.weight.shape[1] * 9)
        return F.conv2d(x, layer.weight * math.sqrt(gain), layer.bias, padding=1)

    images, (b8, b4) = torch.randn(4, 3, 8, 8), (discriminator.b8, discriminator.b4)
    x = F.conv2d(images, b8.fromrgb.weight * math.sqrt(2 / 3), b8.fromrgb.bias)
    x = F.leaky_relu(conv(b8.conv0, F.leaky_relu(x, 0.2)), 0.2)
    x = filter2d(x, fir_kernel(BLUR_TAPS))
    x = F.leaky_relu(downsample_box(conv(b8.conv1, x)), 0.2)
    x = F.leaky_relu(conv(b4.conv, minibatch_stddev(x, group_size=4)), 0.2)
    x = F.linear(x.flatten(1), b4.fc.weight * math.sqrt(2 / 96), b4.fc.bias)
    expected = F.linear(F.leaky_relu(x, 0.2), b4.out.weight / math.sqrt(6), b4.out.bias)
    torch.testing.assert_close(discriminator(images), expected, rtol=1e-4, atol=1e-4)


def test_path_lengths_can_be_differentiated():
    """Nobody trained StyleGAN with them; our AdaIN has a gradient that can be."""
    generator = noisy(tiny()).double()
    ws = generator.mapping(torch.randn(2, 5, dtype=torch.float64))
    images = generator.synthesis(ws)
    (slope,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), ws, create_graph=True)
    slope.square().sum().backward()
    assert generator.synthesis.b4.conv1.affine.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 50}, "the resolution 50 is"),
        ({"resolution": 16, "z_dim": 0}, "z_dim must be more than 0, got 0"),
        ({"resolution": 16, "w_dim": 0}, "w_dim must be more than 0, got 0"),
        ({"resolution": 16, "mapping_layers": -1}, "mapping_layers must be 0 or more, got -1"),
        ({"resolution": 16, "mapping_width": 0}, "mapping_width must be more than 0, got 0"),
        (
            {"resolution": 16, "mapping_layers": 0, "w_dim": 8},
            "w_dim must be 512 with mapping_layers 0",
        ),
        (
            {"resolution": 16, "mapping_layers": 0, "c_dim": 2},
            "w_dim must be 1024 with mapping_layers 0",
        ),
        ({"resolution": 16, "styles": False}, "constant_input without styles"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GeneratorConfig(**options)


def test_the_discriminator_checks_its_options():
    with pytest.raises(
        ConfigError,
        match="mbstd_num_channels must be 0 or a divisor of the 6 channels at 4x4, got 5",
    ):
        DiscriminatorConfig(**SMALL, mbstd_num_channels=5)
