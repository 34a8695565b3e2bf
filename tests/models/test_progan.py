import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.errors import ConfigError
from stylegan.models.base import num_parameters
from stylegan.models.progan import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)
from stylegan.models.registry import create
from stylegan.ops.box import downsample_box, upsample_nearest
from stylegan.ops.normalize import minibatch_stddev, pixel_norm

SMALL = {"resolution": 8, "channel_base": 64, "channel_max": 6}


def test_parameter_counts_at_1024():
    with torch.device("meta"):  # spec 3.1 and 3.2
        networks = create("progan", 1024)
    assert num_parameters(networks.generator) == 23_079_115
    assert num_parameters(networks.discriminator) == 23_087_249


def randomized(network):
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def conv(layer, x):
    gain = 2 / (layer.weight.shape[1] * 9)
    return F.conv2d(x, layer.weight * math.sqrt(gain), layer.bias, padding=1)


def test_the_generator_is_its_formula():
    generator = randomized(Generator(GeneratorConfig(**SMALL, z_dim=5)))
    z, (b4, b8) = torch.randn(3, 5), (generator.synthesis.b4, generator.synthesis.b8)
    x = F.linear(pixel_norm(z), b4.dense.weight * (math.sqrt(2) / 4 / math.sqrt(5)))
    x = x.reshape(3, 6, 4, 4) + b4.dense.bias[:, None, None]
    x = pixel_norm(F.leaky_relu(x, 0.2))
    x = pixel_norm(F.leaky_relu(conv(b4.conv, x), 0.2))
    x = pixel_norm(F.leaky_relu(conv(b8.conv0, upsample_nearest(x)), 0.2))
    x = pixel_norm(F.leaky_relu(conv(b8.conv1, x), 0.2))
    expected = F.conv2d(x, b8.torgb.weight / math.sqrt(6), b8.torgb.bias)
    torch.testing.assert_close(generator(z), expected, rtol=1e-4, atol=1e-5)


def test_the_discriminator_is_its_formula():
    discriminator = randomized(Discriminator(DiscriminatorConfig(**SMALL)))
    images, (b8, b4) = torch.randn(4, 3, 8, 8), (discriminator.b8, discriminator.b4)
    x = F.conv2d(images, b8.fromrgb.weight * math.sqrt(2 / 3), b8.fromrgb.bias)
    x = F.leaky_relu(conv(b8.conv0, F.leaky_relu(x, 0.2)), 0.2)
    x = F.leaky_relu(downsample_box(conv(b8.conv1, x)), 0.2)
    x = F.leaky_relu(conv(b4.conv, minibatch_stddev(x, group_size=4)), 0.2)
    x = F.linear(x.flatten(1), b4.fc.weight * math.sqrt(2 / 96), b4.fc.bias)
    expected = F.linear(F.leaky_relu(x, 0.2), b4.out.weight / math.sqrt(6), b4.out.bias)
    torch.testing.assert_close(discriminator(images), expected, rtol=1e-4, atol=1e-4)


def test_names_of_the_parameters():
    generator = Generator(GeneratorConfig(**SMALL, z_dim=5))
    layers = {name.rpartition(".")[0] for name in generator.state_dict()}
    assert layers == {
        *(f"synthesis.b4.{layer}" for layer in ("dense", "conv", "torgb")),
        *(f"synthesis.b8.{layer}" for layer in ("conv0", "conv1", "torgb")),
    }
    assert generator.state_dict()["synthesis.b4.dense.weight"].shape == (96, 5)
    assert generator.state_dict()["synthesis.b4.dense.bias"].shape == (6,)
    discriminator = Discriminator(DiscriminatorConfig(**SMALL))
    layers = {name.rpartition(".")[0] for name in discriminator.state_dict()}
    assert layers == {
        *(f"b8.{layer}" for layer in ("fromrgb", "conv0", "conv1")),
        *(f"b4.{layer}" for layer in ("fromrgb", "conv", "fc", "out")),
    }


def test_the_one_style_is_the_normalized_latent():
    generator = Generator(GeneratorConfig(**SMALL, z_dim=5))
    z = torch.randn(3, 5)
    assert (generator.num_ws, generator.w_dim) == (1, 5)
    assert torch.equal(generator.mapping(z), pixel_norm(z)[:, None])
    torch.testing.assert_close(generator(3 * z), generator(z))


def test_there_is_no_truncation():
    generator = Generator(GeneratorConfig(**SMALL, z_dim=5))
    with pytest.raises(ValueError, match=r"no truncation, so psi must be 1, got 0\.7"):
        generator(torch.randn(1, 5), truncation_psi=0.7)
    before = generator.state_dict()
    generator.update_w_avg(torch.randn(2, 1, 5), 0.5)
    assert before.keys() == generator.state_dict().keys()
    assert not any(name.endswith("w_avg") for name in before)


def test_there_is_no_noise():
    generator = Generator(GeneratorConfig(**SMALL, z_dim=5))
    z = torch.randn(2, 5)
    assert torch.equal(generator(z, noise_mode="random"), generator(z, noise_mode="none"))


def test_labels_are_normalized_with_z_and_guessed_by_the_discriminator():
    generator = Generator(GeneratorConfig(**SMALL, z_dim=5, c_dim=3))
    discriminator = Discriminator(DiscriminatorConfig(**SMALL, c_dim=3))
    z, c = torch.randn(4, 5), torch.eye(3)[[0, 1, 2, 0]]
    assert generator.w_dim == 8
    assert torch.equal(generator.mapping(z, c)[:, 0], pixel_norm(torch.cat([z, c], dim=1)))
    images = generator(z, c)
    assert (images - generator(z, c.flip(1))).abs().max() > 1e-4
    assert discriminator.b4.out.weight.shape == (4, 6)
    logits, labels = discriminator.logits_and_labels(images)
    assert labels.shape == (4, 3)
    assert torch.equal(discriminator(images, c), logits)
    F.cross_entropy(labels, c).backward()
    assert discriminator.b4.out.weight.grad[1:].abs().max() > 0
    with pytest.raises(ValueError, match=r"c must be \[N, 3\], got None"):
        generator(z)


def test_separate_operations_are_an_option():
    joined = Discriminator(DiscriminatorConfig(**SMALL))
    apart = Discriminator(DiscriminatorConfig(**SMALL, fused_scale=False))
    apart.load_state_dict(joined.state_dict())
    images = torch.randn(4, 3, 8, 8)
    assert (apart(images) - joined(images)).abs().max() > 1e-4


def test_the_group_of_the_statistics_is_an_option():
    images = torch.randn(8, 3, 8, 8)
    discriminator = Discriminator(DiscriminatorConfig(**SMALL, mbstd_group_size=8))
    other = Discriminator(DiscriminatorConfig(**SMALL, mbstd_group_size=2))
    other.load_state_dict(discriminator.state_dict())
    assert (discriminator(images) - other(images)).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GeneratorConfig, {"resolution": 50}, "the resolution 50 is"),
        (GeneratorConfig, {"resolution": 16, "z_dim": 0}, "z_dim must be more than 0, got 0"),
        (
            DiscriminatorConfig,
            {"resolution": 50},
            "the resolution 50 is",
        ),
        (
            DiscriminatorConfig,
            {"resolution": 16, "mbstd_group_size": 0},
            "mbstd_group_size must be more than 0, got 0",
        ),
    ],
)
def test_values_that_cannot_work_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options)
