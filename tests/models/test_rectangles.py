"""Networks for images that are not square."""

import itertools

import pytest
import torch

from stylegan.image_size import ImageSize
from stylegan.models.registry import CONFIGURATIONS, create

TINY = {"channel_base": 64, "channel_max": 6, "z_dim": 8}


def networks(name, resolution, **options):
    torch.manual_seed(0)
    widths = {} if name in ("progan", "stylegan-a") else {"w_dim": 8}
    created = create(name, resolution, **(TINY | widths | options))
    for _, network in created.items():
        with torch.no_grad():  # noise and biases matter only if they are not zero
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return created.generator.eval(), created.discriminator.eval()


def transposed(network, resolution):
    """Return the state of a network with heights and widths exchanged."""
    base = ImageSize.of(resolution).base
    state = {}
    for name, value in network.state_dict().items():
        layer = name.rpartition(".")[0].rpartition(".")[2]
        if value.ndim == 4 or name.endswith((".const", ".noise_const")):
            value = value.transpose(-1, -2)
        elif layer == "fc" and value.ndim == 2:  # of a discriminator, over all pixels of the base
            pixels = value.unflatten(1, (-1, base.height, base.width))
            value = pixels.transpose(-1, -2).flatten(1)
        elif name in ("synthesis.b4.dense.weight", "synthesis.b4.input.weight"):
            pixels = value.unflatten(0, (-1, base.height, base.width))
            value = pixels.transpose(1, 2).flatten(0, 2)
        state[name] = value
    return state


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("progan", "stylegan-b", "stylegan-f", "stylegan2-c")),
        *(("stylegan2-e", {"architecture": each}) for each in ("orig", "resnet", "skip")),
        ("msg-stylegan2", {}),
    ],
)
def test_exchanging_height_and_width_exchanges_them_in_the_images(name, options):
    tall_g, tall_d = networks(name, "40x24", **options)
    wide_g, wide_d = networks(name, "24x40", **options)
    wide_g.load_state_dict(transposed(tall_g, "40x24"))
    wide_d.load_state_dict(transposed(tall_d, "40x24"))
    for network in (tall_g, tall_d, wide_g, wide_d):
        network.double()
    z = torch.randn(2, 8, dtype=torch.float64)
    tall, wide = tall_g(z), wide_g(z)
    assert tall.shape == (2, 3, 40, 24)
    torch.testing.assert_close(wide, tall.transpose(2, 3))
    torch.testing.assert_close(wide_d(wide), tall_d(tall))


@pytest.mark.parametrize("name", ["progan", "stylegan-f", "stylegan2-b"])
def test_growing_networks_pass_through_all_sizes_from_the_base(name):
    generator, discriminator = networks(name, "24x40")
    for lod, size in ((0, (24, 40)), (0.5, (24, 40)), (1, (12, 20)), (2.25, (6, 10)), (3, (3, 5))):
        generator.lod = discriminator.lod = lod
        images = generator(torch.randn(2, 8))
        assert images.shape == (2, 3, *size)
        assert generator.current_size == discriminator.current_size == ImageSize(*size)
        assert discriminator(images).shape == (2, 1)
    with pytest.raises(ValueError, match="lod must be from 0 to 3"):
        generator.lod = 4


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_a_size_of_the_same_level_has_the_same_layers(name):
    tiny = {} if name in ("progan", "stylegan-a") else {"w_dim": 8}
    square, wide = (create(name, size, **TINY, **tiny) for size in (32, "24x40"))
    for (_, one), (_, other) in zip(square.items(), wide.items(), strict=True):
        shapes = [
            {key: value.shape for key, value in each.state_dict().items()} for each in (one, other)
        ]
        assert shapes[0].keys() == shapes[1].keys()
        different = {key for key in shapes[0] if shapes[0][key] != shapes[1][key]}
        assert all("noise_const" in key or "b4." in key for key in different)


def test_channels_and_precision_follow_the_nominal_resolution():
    generator, _ = networks("stylegan2-e", "96x160", channel_base=256, channel_max=64)
    assert generator.synthesis.resolutions == [4, 8, 16, 32, 64, 128]
    assert generator.img_resolution == 128
    assert [
        generator.synthesis.get_submodule(f"b{r}").conv1.weight.shape[0]
        for r in generator.synthesis.resolutions
    ] == [64, 32, 16, 8, 4, 2]


def test_images_of_another_shape_are_refused():
    for shape, name in itertools.product([(24, 40), (40, 40)], ["stylegan2-e", "stylegan-f"]):
        _, discriminator = networks(name, "40x24")
        with pytest.raises(ValueError, match="40, 24"):
            discriminator(torch.zeros(2, 3, *shape))
