import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.image_size import ImageSize
from stylegan.metrics import sliced_wasserstein
from stylegan.metrics.sliced_wasserstein import (
    laplacian_level,
    level_patches,
    mean_sorted_difference,
    sliced_wasserstein_distance,
    standardize_patches,
    unit_directions,
)


def textured(num: int, *, seed: int, resolution: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        40, 200, (num, 3, resolution, resolution), dtype=torch.uint8, generator=generator
    )


def blurred(images: Tensor, times: int) -> Tensor:
    values = images.float()
    for _ in range(times):
        values = F.avg_pool2d(F.pad(values, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return values.round().to(torch.uint8)


def distance(real: Tensor, fake: Tensor, *, seed: int = 0) -> sliced_wasserstein.SlicedWasserstein:
    return sliced_wasserstein_distance(
        real, fake, seed=seed, num_repeats=2, directions=32, patches_per_image=32
    )


def test_equal_sets_are_at_distance_zero_at_every_level():
    images = textured(8, seed=1, resolution=64)
    result = distance(images, images.clone())
    assert result.levels == {64: 0.0, 32: 0.0, 16: 0.0}
    assert result.average == 0.0
    assert result.num_images == 8


def test_average_is_the_mean_of_the_levels():
    result = distance(textured(8, seed=1), blurred(textured(8, seed=2), 1))
    assert list(result.levels) == [32, 16]
    assert result.average == pytest.approx(sum(result.levels.values()) / 2)
    assert result.average > 0


def test_brightness_and_contrast_do_not_count_as_patches_are_normalized():
    images = textured(16, seed=3) // 2  # at most 99, so doubling and shifting stay in range
    same = distance(images, images * 2 + 20)
    # Exact but for the float32 division by the deviation.
    assert same.average < 0.01
    assert distance(images, textured(16, seed=4)).average > 1


def test_it_grows_with_the_strength_of_a_blur():
    real, other = textured(32, seed=5), textured(32, seed=6)
    averages = [distance(real, blurred(other, times)).average for times in (0, 1, 2, 4)]
    for weaker, stronger in pairwise(averages):
        assert stronger > 1.1 * weaker


def test_it_depends_on_the_seed_only():
    real, fake = textured(8, seed=1), textured(8, seed=2)
    assert distance(real, fake) == distance(real, fake)
    assert distance(real, fake, seed=1) != distance(real, fake, seed=2)


def test_blocks_do_not_change_the_result(monkeypatch):
    real, fake = textured(7, seed=1), textured(7, seed=2)
    whole = distance(real, fake)
    with monkeypatch.context() as patch:
        patch.setattr(sliced_wasserstein, "BLOCK_IMAGES", 3)
        assert distance(real, fake) == whole
    sizes = []
    level_of = sliced_wasserstein.laplacian_level
    monkeypatch.setattr(
        sliced_wasserstein,
        "laplacian_level",
        lambda images, *args, **kwargs: (
            sizes.append(len(images)) or level_of(images, *args, **kwargs)
        ),
    )
    monkeypatch.setattr(sliced_wasserstein, "BLOCK_PIXELS", 4 * real.shape[2] ** 2)
    assert distance(real, fake) == whole  # large images, a few at a time
    assert set(sizes) == {4, 3}


def test_a_collapsed_generator_gives_a_finite_distance():
    flat = torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)
    result = distance(textured(8, seed=1), flat)
    # Everything at zero against unit deviation: E|x| of a unit variable is at most 1.
    assert 100 < result.average < 1000


def test_grey_images_work():
    grey = textured(4, seed=1)[:, :1]
    assert distance(grey, grey).average == 0.0


def test_shifted_points_are_at_the_mean_projection_of_the_shift():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1000, 5, generator=generator)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
    directions = unit_directions(50, 5, generator=generator)
    expected = (directions @ shift).abs().mean().item()
    shuffled = (points + shift)[torch.randperm(1000, generator=generator)]
    assert mean_sorted_difference(points, shuffled, directions=directions) == pytest.approx(
        expected, rel=1e-5
    )


def test_directions_are_uniform_on_the_unit_sphere():
    directions = unit_directions(20_000, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(20_000))
    # E|v . d| for a unit v, from the beta distribution of the squared coordinate.
    expected = math.gamma(5) / (math.sqrt(math.pi) * math.gamma(5.5))
    means = directions.abs().mean(dim=0)
    # Four standard errors: deviation of |d_i| is below 0.2, over sqrt(20000).
    torch.testing.assert_close(means, torch.full((10,), expected), atol=4 * 0.2 / 141, rtol=0)


def test_normalized_patches_have_zero_mean_and_unit_deviation_in_each_channel():
    patches = torch.randn(500, 3, 49) * torch.tensor([1.0, 20.0, 0.1])[:, None] + 100
    channels = standardize_patches(patches).unflatten(1, (3, 49)).double()
    torch.testing.assert_close(
        channels.mean(dim=(0, 2)), torch.zeros(3).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        channels.std(dim=(0, 2), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0
    )


def test_constant_images_have_an_empty_band_and_an_unchanged_low_pass():
    images = torch.full((1, 1, 64, 64), 77.0)
    assert laplacian_level(images, 0, is_last=False).abs().max() == 0
    assert laplacian_level(images, 1, is_last=False).abs().max() == 0
    last = laplacian_level(images, 2, is_last=True)
    assert torch.equal(last, torch.full((1, 1, 16, 16), 77.0))


def test_the_band_of_a_point_is_the_point_less_its_twice_filtered_self():
    images = torch.zeros(1, 1, 32, 32)
    images[0, 0, 16, 16] = 1
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    halved = taps[::2]  # the point sits on a kept pixel: weights at -2, 0, 2 survive
    doubled = torch.zeros(9)
    for place, weight in enumerate(halved):
        doubled[2 * place : 2 * place + 5] += weight * 2 * taps
    expected = -torch.outer(doubled, doubled)
    expected[4, 4] += 1
    band = laplacian_level(images, 0, is_last=False)
    torch.testing.assert_close(band[0, 0, 12:21, 12:21], expected)


def test_patches_are_cut_where_the_places_say():
    images = textured(2, seed=1, resolution=16)
    places = torch.tensor([[[0, 0], [3, 9]], [[9, 0], [2, 5]]])
    patches = level_patches(images, 0, is_last=True, places=places).view(2, 2, 3, 7, 7)
    for image in range(2):
        for place in range(2):
            y, x = places[image, place].tolist()
            expected = images[image, :, y : y + 7, x : x + 7].float()
            assert torch.equal(patches[image, place], expected)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32), "uint8"),
        (textured(2, seed=0), textured(3, seed=0), "same count"),
        (
            textured(2, seed=0, resolution=8),
            textured(2, seed=0, resolution=8),
            "sides of 16 pixels",
        ),
        (textured(0, seed=0), textured(0, seed=0), "sides of 16 pixels"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(real, fake, message):
    with pytest.raises(ValueError, match=message):
        distance(real, fake)


def test_patches_reach_the_last_row_and_the_last_column():
    images = textured(16, seed=1, resolution=16)
    for corner in ((..., 0, slice(None)), (..., -1, slice(None)), (..., 0), (..., -1)):
        changed = images.clone()
        changed[corner] = 255
        assert distance(images, changed).average > 0


def test_levels_of_rectangles_are_named_by_their_shorter_sides():
    def pictures(seed, height, width):
        generator = torch.Generator().manual_seed(seed)
        shape = (4, 3, height, width)
        return torch.randint(40, 200, shape, dtype=torch.uint8, generator=generator)

    found = distance(pictures(0, 96, 160), pictures(1, 96, 160))
    assert list(found.levels) == [96, 48, 24]
    assert list(distance(pictures(0, 33, 47), pictures(1, 33, 47)).levels) == [33]
    same = distance(pictures(0, 40, 24), pictures(0, 40, 24))
    assert same.average == 0


def test_patches_of_rectangles_reach_every_corner():
    images = torch.arange(24 * 40, dtype=torch.int64).remainder(256).to(torch.uint8)
    images = images.view(1, 1, 24, 40)
    places = torch.tensor([[[0, 0], [17, 33], [0, 33], [17, 0]]])
    patches = level_patches(images, 0, is_last=True, places=places).view(4, 7, 7)
    for patch, (y, x) in zip(patches, places[0].tolist(), strict=True):
        assert torch.equal(patch, images[0, 0, y : y + 7, x : x + 7].float())
    drawn = sliced_wasserstein._draw_places(
        ImageSize(24, 40), (40, 50), torch.Generator().manual_seed(0)
    )
    assert drawn.amax(dim=(0, 1)).tolist() == [17, 33]
    assert drawn.amin(dim=(0, 1)).tolist() == [0, 0]
