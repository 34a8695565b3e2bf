import dataclasses
import json
import math

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.models import io
from stylegan.models.base import Networks, num_parameters
from stylegan.models.registry import create
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    set_conv_form,
)
from stylegan.nn.equalized import EqualizedConv2d
from stylegan.nn.modulated import SynthesisLayer, ToRGB
from stylegan.ops.box import image_pyramid, upsample_nearest

TABLE_2 = ["orig", "skip", "resnet"]
ARCHITECTURES = [*TABLE_2, "growing", "mipmap"]


@pytest.mark.parametrize(
    ("name", "architecture", "generator", "discriminator"),
    [  # spec, section 7.1, at 1024x1024
        ("stylegan2-f", "skip", 30_370_060, None),
        ("stylegan2-f", "resnet", None, 29_012_513),
        ("stylegan2-e", "skip", 24_900_764, 23_087_249),
        ("stylegan2-e", "orig", 23_596_292, 23_077_137),
        ("stylegan2-e", "resnet", 24_557_316, 24_038_161),
        ("stylegan2-b", "growing", 24_900_764, 23_087_249),  # the layers of skip
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


@pytest.mark.parametrize("g", TABLE_2)
@pytest.mark.parametrize("d", TABLE_2)
def test_all_nine_pairs_of_table_2_run_and_train_every_parameter(g, d, generator_config):
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
    # the rows of a batch may be rounded differently, which depends on the processor
    torch.testing.assert_close(const[0], const[1], atol=1e-5, rtol=1e-5)
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
    x = generator.synthesis.b4(None, ws[:, 0:1], dtype=torch.float32, noise=[None])
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
        ({"resolution": 50}, "the resolution 50 is"),
        ({"resolution": 4}, "the resolution 4 is"),
        ({"resolution": 16, "architecture": "big"}, "one of orig, skip, resnet"),
        (
            {"resolution": 64, "channel_base": 32},
            "channel_base must be at least the resolution of the last block, 64",
        ),
        ({"resolution": 16, "mapping_layers": 0}, "mapping_layers must be more than 0, got 0"),
        ({"resolution": 16, "img_channels": 0}, "img_channels must be more than 0, got 0"),
        ({"resolution": 16, "c_dim": -1}, "c_dim must be 0 or more, got -1"),
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
    with pytest.raises(ConfigError, match=r"network option must be one of .* got 'chanel_base'"):
        create("stylegan2-f", 16, chanel_base=3)


@pytest.fixture
def growing(generator_config, discriminator_config):
    """G and D of 16x16 that grow."""
    return (
        Generator(dataclasses.replace(generator_config, architecture="growing")),
        Discriminator(dataclasses.replace(discriminator_config, architecture="growing")),
    )


def test_a_growing_generator_fades_from_the_smaller_image_to_the_larger(growing):
    generator, _ = growing
    ws = generator.mapping(torch.randn(2, 8))
    images = {}
    for lod, side in ((0, 16), (0.25, 16), (1, 8), (1.5, 8), (2, 4)):
        generator.lod = lod
        images[lod] = generator.synthesis(ws)
        assert images[lod].shape == (2, 3, side, side)
    faded = 0.75 * images[0] + 0.25 * upsample_nearest(images[1])
    torch.testing.assert_close(images[0.25], faded)
    faded = 0.5 * images[1] + 0.5 * upsample_nearest(images[2])
    torch.testing.assert_close(images[1.5], faded)


def test_a_growing_discriminator_fades_from_the_smaller_image_to_the_larger(growing):
    _, discriminator = growing
    small = torch.randn(4, 3, 8, 8)
    discriminator.lod = 1
    before = discriminator(small)
    discriminator.lod = 1 - 1e-6  # the fade has just begun: the larger branch has no weight
    torch.testing.assert_close(discriminator(upsample_nearest(small)), before)
    discriminator.lod = 0.5
    assert (discriminator(upsample_nearest(small)) - before).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"images must be \['N', 3, 16, 16\]"):
        discriminator(small)


def test_a_level_beyond_the_network_is_refused(growing, generator_config):
    for network in growing:
        with pytest.raises(ValueError, match=r"lod must be from 0 to 2, got 2\.5"):
            network.lod = 2.5
    with pytest.raises(ValueError, match="lod must be 0, as this network does not grow"):
        Generator(generator_config).lod = 1


def test_a_clamp_bounds_every_layer_but_residual_branches_and_rgb_at_4x4(
    generator_config, discriminator_config
):
    clamp = 0.01  # below what the biases alone give
    outputs = {}

    def observe(network):
        for name, layer in network.named_modules():
            if isinstance(layer, EqualizedConv2d | SynthesisLayer | ToRGB):

                def record(layer, x, y, name=name):
                    outputs[name] = y.abs().max().item()

                layer.register_forward_hook(record)
                if layer.bias is not None:
                    torch.nn.init.ones_(layer.bias)

    for architecture in TABLE_2:
        options = {"architecture": architecture, "conv_clamp": clamp}
        generator = Generator(dataclasses.replace(generator_config, **options))
        discriminator = Discriminator(dataclasses.replace(discriminator_config, **options))
        observe(generator)
        observe(discriminator)
        discriminator(generator(torch.randn(4, 8)) + torch.randn(4, 3, 16, 16))
        for name, largest in outputs.items():
            if name.endswith("skip"):
                continue
            is_scaled = architecture == "resnet" and name.endswith("conv1")
            is_scaled = is_scaled and not name.startswith("synthesis.b4")
            bound = clamp * math.sqrt(0.5) if is_scaled else clamp
            if name == "b4.fromrgb":
                assert largest > 10 * clamp
            else:
                assert largest == pytest.approx(bound, rel=1e-6), name
        outputs.clear()


def test_a_large_bias_is_clamped_in_float32(generator_config):
    clamped = Generator(dataclasses.replace(generator_config, conv_clamp=256.0))
    free = Generator(generator_config)
    free.load_state_dict(clamped.state_dict())
    z = torch.randn(2, 8)
    torch.testing.assert_close(clamped(z), free(z), rtol=0, atol=0)
    with torch.no_grad():
        for network in (clamped, free):
            network.synthesis.b8.conv0.bias[0] = 400
    assert (clamped(z) - free(z)).abs().max() > 0.1 * free(z).abs().max()


def test_networks_of_files_without_a_clamp_have_none(generator_config, tmp_path):
    io.save(Networks(generator=Generator(generator_config)), tmp_path / "net")
    description = json.loads((tmp_path / "net/model.json").read_text())
    del description["networks"]["generator"]["config"]["conv_clamp"]
    (tmp_path / "net/model.json").write_text(json.dumps(description))
    assert io.load(tmp_path / "net").generator.config == generator_config


def test_the_clamp_is_saved(generator_config, tmp_path):
    config = dataclasses.replace(generator_config, conv_clamp=3.5)
    io.save(Networks(generator=Generator(config)), tmp_path / "net")
    assert io.load(tmp_path / "net").generator.config == config


@pytest.mark.parametrize("clamp", [0, -1.0, float("nan")])
def test_a_clamp_that_leaves_nothing_is_refused(generator_config, clamp):
    with pytest.raises(ConfigError, match="conv_clamp"):
        dataclasses.replace(generator_config, conv_clamp=clamp)


def test_the_level_of_detail_is_saved(growing, tmp_path):
    generator, discriminator = growing
    generator.lod = discriminator.lod = 1.25
    io.save(Networks(generator=generator, discriminator=discriminator), tmp_path / "net")
    again = io.load(tmp_path / "net")
    assert again.generator.lod == again.discriminator.lod == 1.25
    z = torch.randn(2, 8)
    assert torch.equal(again.generator(z), generator(z))


@pytest.fixture
def msg(generator_config, discriminator_config):
    """G and D of 16x16 that make and take an image at each resolution."""
    return (
        Generator(dataclasses.replace(generator_config, architecture="mipmap")),
        Discriminator(dataclasses.replace(discriminator_config, architecture="mipmap")),
    )


def test_a_mipmap_generator_shows_an_image_at_each_resolution(msg):
    generator, discriminator = msg
    ws = generator.mapping(torch.randn(2, 8))
    shown = generator.discriminator_input(ws)
    assert [list(image.shape) for image in shown] == [[2, 3, side, side] for side in (16, 8, 4)]
    assert torch.equal(generator.synthesis(ws), shown[0])
    grads = torch.autograd.grad(discriminator(shown).sum(), list(generator.parameters()))
    assert all(grad.abs().max() > 0 for grad in grads if grad.ndim > 0)  # noise strengths too may


def test_a_mipmap_discriminator_makes_the_mipmap_of_a_real_image_itself(msg):
    _, discriminator = msg
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(
        discriminator(image_pyramid(images, num_levels=3)), discriminator(images)
    )
    other = [
        images,
        *[torch.randn_like(image) for image in image_pyramid(images, num_levels=3)[1:]],
    ]
    assert (discriminator(other) - discriminator(images)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="images must be of 1 or 3 sizes, got 2"):
        discriminator(image_pyramid(images, num_levels=3)[:2])


def test_a_network_of_one_image_refuses_several(discriminator_config):
    with pytest.raises(ValueError, match="images must be of one size, got 3"):
        Discriminator(discriminator_config)(image_pyramid(torch.zeros(1, 3, 16, 16), num_levels=3))


def test_labels_select_one_of_the_outputs_of_a_discriminator(discriminator_config):
    config = dataclasses.replace(discriminator_config, c_dim=3, label_head="select")
    discriminator = Discriminator(config)
    images = torch.randn(4, 3, 16, 16)
    each = [discriminator(images, c.expand(4, -1)) for c in torch.eye(3)]
    assert (each[0] - each[1]).abs().max() > 1e-3
    torch.testing.assert_close(discriminator(images, torch.ones(4, 3)), sum(each))
    with pytest.raises(ValueError, match=r"c must be \[4, 3\], got None"):
        discriminator(images)


def test_a_mapping_network_of_another_width_and_joint_labels(generator_config):
    config = dataclasses.replace(generator_config, mapping_width=10, c_dim=3, label_norm="joint")
    generator = Generator(config)
    assert [
        list(layer.shape) for layer in (generator.mapping.fc0.weight, generator.mapping.fc1.weight)
    ] == [[10, 16], [12, 10]]
    assert generator(torch.randn(2, 8), torch.eye(3)[:2]).shape == (2, 3, 16, 16)


@pytest.mark.gpu
def test_cuda_images_are_within_two_levels_of_the_cpu(generator_config):
    generator = Generator(generator_config)
    z = torch.randn(4, 8)
    there = generator.cuda()(z.cuda()).cpu()
    assert (there - generator.cpu()(z)).abs().max() < 2 / 127.5


def test_a_generator_without_noise_makes_the_images_of_noise_of_strength_zero():
    config = GeneratorConfig(resolution=16, z_dim=8, w_dim=8, channel_base=128, channel_max=8)
    with_noise = Generator(config)
    without = Generator(dataclasses.replace(config, noise=False))
    missing = without.load_state_dict(with_noise.state_dict(), strict=False)
    assert not missing.missing_keys
    assert {name.rpartition(".")[2] for name in missing.unexpected_keys} == {
        "noise_strength", "noise_const",
    }  # fmt: skip
    z = torch.randn(2, 8)
    for mode in ("const", "random", "none"):
        images = without(z, noise_mode=mode)
        assert torch.equal(images, with_noise(z, noise_mode="none"))
    with torch.no_grad():
        with_noise.synthesis.b16.conv1.noise_strength.fill_(1)
    assert not torch.equal(with_noise(z, noise_mode="const"), images)
