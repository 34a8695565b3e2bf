import pytest
import torch

import stylegan
from stylegan.analysis.variation import (
    GROUPS,
    fine_from,
    layers_of,
    variation,
    with_noise_of,
)
from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.models.noise import noise_maps


def network(preset="stylegan2-f", side=32):
    torch.manual_seed(0)
    generator = stylegan.create(preset, side, channel_base=256, channel_max=16).generator.eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return generator.requires_grad_(False)


@pytest.mark.parametrize(
    ("side", "expected"), [(1024, 64), (512, 64), (256, 32), (64, 16), (32, 16), (16, 8)]
)
def test_fine_begins_where_the_paper_has_it_and_in_the_upper_half_below(side, expected):
    assert fine_from(ImageSize(side, side)) == ImageSize(expected, expected)


@pytest.mark.parametrize("preset", ["stylegan-f", "stylegan2-b", "stylegan2-f"])
def test_groups_split_the_layers(preset):
    generator = network(preset)
    fine, coarse = (layers_of(generator, group) for group in ("fine", "coarse"))
    assert coarse + fine == layers_of(generator, "all") == list(noise_maps(generator))
    assert all(layer.startswith(("b16", "b32")) for layer in fine)
    assert layers_of(generator, "none") == []


@pytest.mark.slow
def test_images_with_noise_of_a_group():
    generator = network()
    ws = generator.mapping(torch.randn(2, 512))
    images = {group: with_noise_of(generator, ws, group) for group in GROUPS}
    assert torch.equal(images["all"], generator.synthesis(ws))
    torch.testing.assert_close(images["none"], generator.synthesis(ws, noise_mode="none"))
    assert len({image.numpy().tobytes() for image in images.values()}) == 4
    # coarse noise moves what is large, fine noise what is small
    change = {
        group: (images[group] - images["none"]).mean(dim=1, keepdim=True)
        for group in ("fine", "coarse")
    }
    large = {
        group: torch.nn.functional.avg_pool2d(each, 8).var() / each.var()
        for group, each in change.items()
    }
    assert large["coarse"] > 1.5 * large["fine"]


@pytest.mark.slow
def test_variation_is_the_deviation_over_realizations():
    generator = network()
    ws = generator.mapping(torch.randn(1, 512))
    found = variation(generator, ws, num=60, batch=7)
    again = variation(generator, ws, num=60, batch=60)
    torch.testing.assert_close(found.deviation, again.deviation, atol=1e-5, rtol=1e-3)
    images = [
        generator.synthesis(ws, noise_mode="random", generator=torch.Generator().manual_seed(i))
        for i in range(300)
    ]
    grey = torch.cat(images).clamp(-1, 1).mean(dim=1) / 2
    torch.testing.assert_close(found.deviation.mean(), grey.std(dim=0).mean(), rtol=0.05, atol=0)
    torch.testing.assert_close(found.mean.mean(), 2 * grey.mean(), rtol=0.1, atol=0.02)
    other = variation(generator, ws, num=60, seed=1)
    assert not torch.equal(other.deviation, found.deviation)


def test_no_noise_varies_nothing_and_groups_less_than_all():
    generator = network()
    ws = generator.mapping(torch.randn(1, 512))
    means = {
        group: variation(generator, ws, num=30, group=group).deviation.mean() for group in GROUPS
    }
    assert means["none"] < 1e-7
    assert means["all"] > max(means["fine"], means["coarse"]) > 0


def test_networks_without_noise_are_refused():
    generator = stylegan.create("progan", 16, channel_base=64).generator
    with pytest.raises(ConfigError, match="without noise"):
        layers_of(generator, "all")
