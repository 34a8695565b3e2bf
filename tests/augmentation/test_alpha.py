"""Augmentation of premultiplied RGBA."""

import pytest
import torch

from stylegan.alpha import compose, premultiply
from stylegan.augmentation.diffaugment import diffaugment, draw_diffaugment
from stylegan.augmentation.draws import RandomDraws
from stylegan.augmentation.parameters import draw_parameters, transforms_of
from stylegan.augmentation.pipeline import augment

NUM = 6


@pytest.fixture
def straight():
    """Straight RGBA, [NUM, 4, 16, 16], with transparent, soft and opaque parts."""
    x = torch.rand(NUM, 4, 16, 16) * 2 - 1
    x[:, 3] = torch.linspace(-1.5, 1.5, 16).clamp(-1, 1)
    return x


def parameters_of(augment_set):
    return draw_parameters(
        transforms_of(augment_set), 1.0, RandomDraws(NUM, torch.Generator().manual_seed(3))
    )


def test_colors_change_as_those_of_opaque_images_and_alpha_stays(straight):
    parameters = parameters_of("color")
    changed = augment(premultiply(straight), parameters, has_alpha=True)
    expected = premultiply(
        torch.cat([augment(straight[:, :3], parameters), straight[:, 3:]], dim=1)
    )
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(changed[:, 3], straight[:, 3])


@pytest.mark.parametrize("augment_set", ["color", "filter", "noise"])
def test_transparent_pixels_get_no_color(augment_set):
    nothing = torch.full([NUM, 4, 16, 16], -1.0)
    changed = augment(nothing, parameters_of(augment_set), has_alpha=True)
    torch.testing.assert_close(changed, nothing, atol=1e-5, rtol=0)


@pytest.mark.parametrize("augment_set", ["color", "filter", "noise"])
def test_opaque_images_are_augmented_like_rgb(straight, augment_set):
    opaque = straight.clone()
    opaque[:, 3] = 1
    parameters = parameters_of(augment_set)
    changed = augment(opaque, parameters, has_alpha=True)
    if augment_set == "noise":  # drawn for the colors alone
        assert not torch.equal(changed[:, :3], opaque[:, :3])
    torch.testing.assert_close(
        changed[:, :3], augment(opaque[:, :3].clone(), parameters), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(changed[:, 3], opaque[:, 3])


def test_cutout_makes_a_transparent_rectangle(straight):
    changed = augment(premultiply(straight), parameters_of("cutout"), has_alpha=True)
    is_cut = (changed == -1).all(dim=1)
    assert is_cut.flatten(1).sum(dim=1).min() > 16


def test_diffaugment_leaves_transparent_pixels_and_treats_opaque_images_like_rgb(straight):
    parameters = draw_diffaugment(RandomDraws(NUM, torch.Generator().manual_seed(3)))
    nothing = torch.full([NUM, 4, 16, 16], -1.0)
    torch.testing.assert_close(
        diffaugment(nothing, parameters, has_alpha=True), nothing, atol=1e-5, rtol=0
    )
    opaque = straight.clone()
    opaque[:, 3] = 1
    changed = diffaugment(opaque, parameters, has_alpha=True)
    expected = diffaugment(opaque[:, :3], parameters)
    # zeros outside of the image are transparent with alpha, and mid-grey without
    is_inside = changed[:, 3:] > -1
    torch.testing.assert_close(
        torch.where(is_inside, changed[:, :3], 0.0),
        torch.where(is_inside, expected, 0.0),
        atol=1e-5,
        rtol=1e-5,
    )
    assert torch.equal(
        compose(changed, -1.0)[~is_inside.expand(-1, 3, -1, -1)].unique(), torch.tensor([-1.0])
    )
