"""The augmentation pipeline against the official code, against statistics, and differentiated."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan.augmentation.diffaugment import diffaugment, draw_diffaugment
from stylegan.augmentation.draws import QuantileDraws, RandomDraws
from stylegan.augmentation.geometry import grid_sample
from stylegan.augmentation.parameters import GROUPS, draw_parameters, transforms_of
from stylegan.augmentation.pipeline import augment
from stylegan.augmentation.wavelets import SYM2, SYM6, band_filters
from stylegan.losses.regularizers import r1_penalty
from stylegan.microbatch import BatchSlice

GOLDEN = Path(__file__).parents[1] / "parity" / "ada-debug-percentile.npz"
OFFICIAL_NAMES = {
    "xflip": "x_flip",
    "rotate90": "quarter_turn",
    "xint": "integer_shift",
    "scale": "scale",
    "rotate": "rotation",
    "aniso": "anisotropic_scale",
    "xfrac": "fractional_shift",
    "brightness": "brightness",
    "contrast": "contrast",
    "lumaflip": "luma_flip",
    "hue": "hue",
    "saturation": "saturation",
    "imgfilter": "band_gains",
    "cutout": "cutout",
}
EVERYTHING = transforms_of("bgcfnc")


def drawn(names, num, *, p=1.0, seed=0):
    return draw_parameters(names, p, RandomDraws(num, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("quantile", [0.2, 0.7])
@pytest.mark.parametrize("name", OFFICIAL_NAMES)
def test_each_transform_is_that_of_the_official_code(name, quantile):
    golden = np.load(GOLDEN)
    images = torch.from_numpy(golden["x"])
    parameters = draw_parameters({OFFICIAL_NAMES[name]}, 1.0, QuantileDraws(2, quantile))
    expected = torch.from_numpy(golden[f"{name}_{quantile}"])
    torch.testing.assert_close(augment(images, parameters), expected, atol=1e-4, rtol=0)


def test_sets_are_groups_and_their_initials():
    assert transforms_of("bg") == GROUPS["blit"] + GROUPS["geom"]
    assert transforms_of("bgc") == (*transforms_of("bg"), *GROUPS["color"])
    assert set(EVERYTHING) == {name for names in GROUPS.values() for name in names}
    assert transforms_of("bgcfn") == EVERYTHING[:-1]
    assert transforms_of("cutout") == ("cutout",)


# mean and standard deviation of what is applied, by transform
DISTRIBUTIONS = {
    "x_flip": (0, 1),
    "quarter_turn": (1.5, math.sqrt(1.25)),
    "integer_shift": (0, 0.25 / math.sqrt(12)),
    "rotation": (0, 2 * math.pi / math.sqrt(12)),
    "second_rotation": (0, 2 * math.pi / math.sqrt(12)),
    "fractional_shift": (0, 0.125),
    "brightness": (0, 0.2),
    "luma_flip": (0.5, 0.5),
    "hue": (0, 2 * math.pi / math.sqrt(12)),
    "noise_std": (0.1 * math.sqrt(2 / math.pi), 0.1 * math.sqrt(1 - 2 / math.pi)),
    "cutout": (0.5, 1 / math.sqrt(12)),
}
LOGARITHMS = {"scale": 0.2, "anisotropic_scale": 0.2, "contrast": 0.5, "saturation": 1.0}
NEUTRAL = {"x_flip": 1, "scale": 1, "anisotropic_scale": 1, "contrast": 1, "saturation": 1}


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, *LOGARITHMS])
def test_ten_thousand_draws_have_mean_spread_and_frequency_of_the_paper(name):
    num, p = 10_000, 0.4
    values = drawn({name}, num).values[name].flatten()
    mean, std = DISTRIBUTIONS.get(name, (0, LOGARITHMS.get(name)))
    if name in LOGARITHMS:
        values = values.log2()
    count = len(values)
    assert abs(values.mean() - mean) < 3 * std / math.sqrt(count)
    # the standard error of a variance, from the fourth moment
    fourth = ((values - mean) ** 4).mean()
    error = math.sqrt(max(fourth - std**4, 1e-12) / count)
    assert abs(((values - mean) ** 2).mean() - std**2) <= 3 * error + 1e-6

    sometimes = drawn({name}, num, p=p, seed=1).values[name]
    neutral = math.inf if name == "cutout" else NEUTRAL.get(name, 0)
    fraction = (sometimes != neutral).any(dim=1).double().mean()
    expected = 1 - math.sqrt(1 - p) if "rotation" in name else p
    expected *= {"x_flip": 1 / 2, "luma_flip": 1 / 2, "quarter_turn": 3 / 4}.get(name, 1)
    assert abs(fraction - expected) < 3 * math.sqrt(expected * (1 - expected) / num)


def test_gains_of_bands_keep_the_expected_power():
    gains = drawn({"band_gains"}, 10_000).values["band_gains"]
    powers = torch.tensor([10.0, 1, 1, 1], dtype=torch.float64) / 13
    one_band = drawn({"band_gains"}, 10_000, p=0.05, seed=2).values["band_gains"]
    is_one = (one_band != 1).any(dim=1)
    assert abs(is_one.double().mean() - (1 - 0.95**4)) < 0.012
    alone = one_band[is_one & (one_band[:, 1:] == one_band[:, 1:2]).all(dim=1)]
    torch.testing.assert_close((alone.square() * powers).sum(1), torch.ones(len(alone)).double())
    assert gains.log2().std(dim=0).min() > 0.4


def test_filters_are_orthogonal_and_bands_sum_to_the_identity():
    for taps in (torch.tensor(SYM2), torch.tensor(SYM6)):
        assert taps.sum() == pytest.approx(1)
        for shift in range(0, len(taps), 2):
            product = (taps[shift:] * taps[: len(taps) - shift]).sum()
            assert product.item() == pytest.approx(0.5 if shift == 0 else 0, abs=1e-6)
    total = band_filters().sum(dim=0)
    expected = torch.zeros_like(total)
    expected[len(total) // 2] = 1
    torch.testing.assert_close(total, expected)
    response = torch.fft.rfft(band_filters(), n=64).abs()
    assert response[0, 0] > 0.99
    assert response[3, -1] > 0.99


def test_nothing_happens_with_probability_0():
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(augment(images, drawn(transforms_of("bgc"), 3, p=0.0)), images)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels_and_shape_are_augmented(channels):
    images = torch.randn(4, channels, 12, 20)
    result = augment(images, drawn(EVERYTHING, 4))
    assert result.shape == images.shape
    assert torch.isfinite(result).all()
    assert not torch.allclose(result, images)
    assert diffaugment(images, draw_diffaugment(RandomDraws(4, None))).shape == images.shape


def test_grey_images_become_what_equal_channels_become():
    grey = torch.randn(6, 1, 16, 16)
    parameters = drawn(transforms_of("bgcfnc")[:13], 6, p=0.7)
    in_color = augment(grey.expand(-1, 3, -1, -1), parameters)
    mean = in_color.mean(dim=1, keepdim=True)
    torch.testing.assert_close(augment(grey, parameters), mean, atol=1e-4, rtol=1e-4)


def test_a_long_image_is_turned_about_its_center():
    images = torch.randn(1, 3, 8, 24)
    parameters = draw_parameters({"quarter_turn"}, 1.0, QuantileDraws(1, 0.5))  # a half turn
    expected = images.rot90(2, dims=(2, 3))
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    smooth = F.avg_pool2d(images, 5, 1, 2)  # the filters of two opposite directions differ
    smooth_expected = F.avg_pool2d(expected, 5, 1, 2)
    torch.testing.assert_close(
        augment(smooth, parameters)[inner], smooth_expected[inner], atol=0.1, rtol=0
    )


def test_a_micro_batch_is_augmented_as_within_the_batch():
    images = torch.randn(8, 3, 16, 16)
    parameters = drawn(EVERYTHING, 8, p=0.8)
    whole = augment(images, parameters)
    for rows in BatchSlice.whole(8, group_size=2).micro_batches(4):
        part = augment(rows.take(images), parameters.take(rows))
        torch.testing.assert_close(part, rows.take(whole), atol=1e-4, rtol=1e-4)


def test_another_number_of_images_is_refused():
    with pytest.raises(ValueError, match="parameters of 3 images for 2 images"):
        augment(torch.zeros(2, 3, 8, 8), drawn({"hue"}, 3))


@pytest.mark.parametrize("names", [transforms_of("bg"), ("band_gains",), EVERYTHING])
def test_both_derivatives_are_those_of_finite_differences(names):
    torch.manual_seed(1)
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    parameters = drawn(names, 2)

    def compute(x):
        return augment(x, parameters).tanh()  # not linear, so that there is a second derivative

    assert torch.autograd.gradcheck(compute, [images])
    assert torch.autograd.gradgradcheck(compute, [images])


def test_sampling_has_the_gradient_of_torchs_own():
    images = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(2, 4, 7, 2, dtype=torch.float64) * 2.4 - 1.2
    weight = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    (ours,) = torch.autograd.grad((grid_sample(images, grid) * weight).sum(), images)
    theirs = F.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(ours, torch.autograd.grad((theirs * weight).sum(), images)[0])


def test_r1_of_a_linear_discriminator_is_that_of_the_augmentation():
    weight = torch.randn(3, 8, 8, dtype=torch.float64)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    parameters = drawn({"contrast"}, 2)
    logits = (augment(images, parameters) * weight).sum(dim=(1, 2, 3))[:, None]
    contrast = parameters.values["contrast"][:, 0]
    expected = contrast.square() * weight.square().sum()
    torch.testing.assert_close(r1_penalty(logits, images), expected)


def test_diffaugment_is_the_formulas_of_the_paper():
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    parameters = draw_diffaugment(QuantileDraws(1, 0.75))
    x = images + 0.25  # brightness from -0.5 to 0.5
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * 1.5 + grey
    x = (x - x.mean()) * 1.25 + x.mean()
    shifted = torch.zeros_like(x)
    shifted[..., 1:, 1:] = x[..., :-1, :-1]  # from -2 to 2 pixels
    shifted[..., 8:16, 8:16] = 0  # a square of 8 pixels around the pixel 12
    torch.testing.assert_close(diffaugment(images, parameters), shifted)


@pytest.mark.parametrize("size", [(16, 24), (24, 16)])
def test_quarter_turns_are_left_out_where_the_sides_differ(size):
    images = torch.randn(1, 3, *size)
    quarter, half = (
        draw_parameters({"quarter_turn"}, 1.0, QuantileDraws(1, quantile))
        for quantile in (0.25, 0.5)
    )
    assert torch.equal(augment(images, quarter), images)
    assert not torch.equal(augment(images, half), images)
    square = torch.randn(1, 3, 16, 16)
    assert not torch.equal(augment(square, quarter), square)


def test_shifts_and_cutouts_are_fractions_of_each_side():
    images = torch.ones(1, 1, 16, 64)
    cut = draw_parameters({"cutout"}, 1.0, QuantileDraws(1, 0.5))
    (rows, columns) = (augment(images, cut)[0, 0] == 0).nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 16, 47)
    picture = torch.zeros(1, 1, 16, 64)
    picture[0, 0, 8, 32] = 1
    shift = draw_parameters({"integer_shift"}, 1.0, QuantileDraws(1, 1.0))  # an eighth
    assert augment(picture, shift)[0, 0, 10, 40] == pytest.approx(1, abs=1e-4)
