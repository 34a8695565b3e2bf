"""What holds of ProGAN and of every letter of StyleGAN, at tiny sizes."""

import copy
import itertools

import pytest
import torch

from stylegan.losses.regularizers import r1_penalty
from stylegan.models.io import load, save
from stylegan.models.registry import create
from stylegan.ops.box import downsample_box, upsample_nearest

NAMES = ["progan", *(f"stylegan-{letter}" for letter in "abcdef"), "stylegan2-a"]


@pytest.fixture(params=NAMES)
def networks(request):
    """16x16, z 8, w 8; biases and noise strengths are not the zeros that hide errors."""
    made = create(request.param, 16, **options_of(request.param))
    for network in (made.generator, made.discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                torch.nn.init.normal_(parameter, std=0.3)
    return made


def options_of(name):
    small = {"channel_base": 64, "channel_max": 6, "z_dim": 8}
    return small if name in ("progan", "stylegan-a") else small | {"w_dim": 8}


@pytest.mark.parametrize(("lod", "side"), [(0, 16), (0.5, 16), (1, 8), (1.25, 8), (2, 4)])
def test_images_have_the_resolution_of_the_level(networks, lod, side):
    networks.generator.lod = networks.discriminator.lod = lod
    images = networks.generator(torch.randn(4, 8))
    assert images.shape == (4, 3, side, side)
    assert images.dtype == torch.float32
    assert networks.discriminator(images).shape == (4, 1)
    assert torch.equal(networks.discriminator([images]), networks.discriminator(images))


@pytest.mark.parametrize("lod", [0, 0.5, 2])
def test_every_parameter_of_the_level_is_trained(networks, lod):
    networks.generator.lod = networks.discriminator.lod = lod
    networks.discriminator(networks.generator(torch.randn(4, 8))).square().sum().backward()
    rgb = {0: ["b16"], 0.5: ["b16", "b8"], 2: ["b4"]}[lod]
    blocks = {0: ["b16", "b8", "b4"], 0.5: ["b16", "b8", "b4"], 2: ["b4"]}[lod]
    parameters = itertools.chain(
        networks.generator.named_parameters(), networks.discriminator.named_parameters()
    )
    for name, parameter in parameters:
        block, _, layer = name.removeprefix("synthesis.").partition(".")
        is_rgb = layer.startswith(("torgb", "fromrgb"))
        is_used = block == "mapping" or block in (rgb if is_rgb else blocks)
        moves = parameter.grad is not None and parameter.grad.abs().max() > 0
        assert moves == is_used, name


def test_a_whole_level_is_where_its_fade_ends(networks):
    generator, discriminator = networks.generator, networks.discriminator
    z, images = torch.randn(4, 8), torch.randn(4, 3, 16, 16)
    for lod in (0, 1):
        generator.lod = discriminator.lod = lod
        shown = images if lod == 0 else downsample_box(images)
        whole, logits = generator(z), discriminator(shown)
        generator.lod = discriminator.lod = lod + 1e-6
        torch.testing.assert_close(generator(z), whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(discriminator(shown), logits, rtol=1e-4, atol=1e-4)


def test_a_level_begins_as_the_one_below_enlarged(networks):
    generator, discriminator = networks.generator, networks.discriminator
    z, images = torch.randn(4, 8), torch.randn(4, 3, 16, 16)
    for lod in (1, 2):
        shown = images if lod == 1 else downsample_box(images)
        generator.lod = discriminator.lod = lod
        below, logits = generator(z), discriminator(downsample_box(shown))
        generator.lod = discriminator.lod = lod - 1e-6
        torch.testing.assert_close(generator(z), upsample_nearest(below), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(discriminator(shown), logits, rtol=1e-4, atol=1e-4)


def test_images_fade_linearly(networks):
    generator, z = networks.generator, torch.randn(4, 8)
    generator.lod = 0
    large = generator(z)
    generator.lod = 1
    small = upsample_nearest(generator(z))
    generator.lod = 0.25
    torch.testing.assert_close(generator(z), 0.75 * large + 0.25 * small, rtol=1e-4, atol=1e-5)


def test_levels_beyond_4x4_are_refused(networks):
    for network in (networks.generator, networks.discriminator):
        with pytest.raises(ValueError, match="lod must be from 0 to 2"):
            network.lod = 2.5


def test_images_of_another_level_are_refused(networks):
    networks.discriminator.lod = 1
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 8, 8\], got \[4, 3, 16, 16\]"):
        networks.discriminator(torch.zeros(4, 3, 16, 16))


def test_ws_of_another_number_are_refused(networks):
    num = networks.generator.num_ws
    with pytest.raises(ValueError, match=rf"ws must be \[N, {num}, w_dim\]"):
        networks.generator.synthesis(torch.zeros(2, num + 1, 8))


@pytest.mark.parametrize("lod", [0, 0.5])
def test_r1_is_differentiable(networks, lod):
    networks.discriminator.lod = lod
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    penalty = r1_penalty(networks.discriminator(images), images)
    assert penalty.shape == (4,)
    penalty.mean().backward()
    weight = networks.discriminator.b4.conv.weight
    assert weight.grad.abs().max() > 0


def test_r1_is_the_derivative_of_the_logits(networks):
    """Against a finite difference, in float64."""
    discriminator = networks.discriminator.double()
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images)
    step = 1e-8 * torch.randn_like(images)
    change = discriminator(images + step).sum() - discriminator(images - step).sum()
    torch.testing.assert_close(change, 2 * (slope * step).sum(), rtol=1e-4, atol=1e-13)


def test_bfloat16_is_close_and_gives_float32(networks):
    generator, discriminator, z = networks.generator, networks.discriminator, torch.randn(4, 8)
    exact = generator(z)
    logits = discriminator(exact)
    generator.compute_dtype = discriminator.compute_dtype = torch.bfloat16
    images = generator(z)
    assert images.dtype == torch.float32
    # 8 bits, six layers; the mean, as pixel norm enlarges the error where all is near zero
    assert 0 < (images - exact).abs().mean() < 0.02 * exact.abs().mean()
    found = discriminator(exact)
    assert found.dtype == torch.float32
    assert 0 < (found - logits).abs().max() < 0.05 * max(1, logits.abs().max())


def test_float64_inputs_are_computed_in_float64(networks):
    images = networks.generator(torch.randn(2, 8, dtype=torch.float64))
    assert images.dtype == torch.float64
    assert networks.discriminator(images).dtype == torch.float64


def test_a_native_folder_brings_back_network_and_level(networks, tmp_path):
    networks.generator.lod = networks.generator_ema.lod = networks.discriminator.lod = 0.5
    save(networks, tmp_path / "model")
    again = load(tmp_path / "model")
    for (name, network), (_, other) in zip(networks.items(), again.items(), strict=True):
        assert other.config == network.config, name
        assert other.lod == 0.5, name
        assert all(map(torch.equal, network.state_dict().values(), other.state_dict().values()))
    z = torch.randn(2, 8)
    assert torch.equal(again.generator(z), networks.generator(z))


def test_a_copy_has_a_level_of_its_own(networks):
    again = copy.deepcopy(networks.generator)
    again.lod = 1
    assert networks.generator.lod == 0


@pytest.mark.parametrize("name", ["progan", "stylegan-f"])
@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (8, 4), (32, 3)])
def test_any_resolution_and_number_of_channels(name, resolution, channels):
    options = options_of(name) | {"img_channels": channels}
    made = create(name, resolution, **options)
    images = made.generator(torch.randn(2, 8))
    assert images.shape == (2, channels, resolution, resolution)
    assert made.discriminator(images).shape == (2, 1)


@pytest.mark.gpu
def test_cuda_equals_cpu(networks):
    z = torch.randn(4, 8)
    images = networks.generator(z)
    logits = networks.discriminator(images)
    there = networks.generator.cuda()(z.cuda())
    torch.testing.assert_close(there.cpu(), images, rtol=1e-3, atol=1e-3)  # TF32 off
    found = networks.discriminator.cuda()(images.detach().cuda())
    torch.testing.assert_close(found.cpu(), logits, rtol=1e-3, atol=1e-3)
