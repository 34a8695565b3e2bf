import pytest
import torch
from torch import Tensor

from stylegan.latent.interpolate import ease, loop_through, smooth_loop, walk_through
from stylegan.rng import generator_for

INTERPOLATIONS = ["spline", "linear", "spherical"]


def random_keys(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator_for("keys", seed=0))


def steps(frames: Tensor) -> Tensor:
    """Distance from each frame to the next, from the last to the first included."""
    return (frames.roll(-1, 0) - frames).flatten(1).norm(dim=1)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(5, 16), (3, 8, 16), (1, 16), (2, 16)])
def test_key_frames_are_the_keys_bit_for_bit(interpolation, shape):
    keys = random_keys(*shape)
    frames = loop_through(keys, 7, interpolation=interpolation)
    assert frames.shape == (7 * shape[0], *shape[1:])
    assert frames.dtype == torch.float32
    assert torch.equal(frames[::7], keys)
    assert frames.isfinite().all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_step_from_the_last_frame_to_the_first_is_no_longer_than_the_others(interpolation):
    frames = loop_through(random_keys(4, 32), 20, interpolation=interpolation)
    lengths = steps(frames)
    assert lengths[-1] < 2 * lengths.mean()
    assert lengths.max() < 2 * lengths.mean()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_one_frame_for_each_key_gives_the_keys(interpolation):
    keys = random_keys(4, 8)
    assert torch.equal(loop_through(keys, 1, interpolation=interpolation), keys)


def test_a_linear_loop_of_two_keys_goes_there_and_back():
    frames = loop_through(torch.tensor([[0.0], [4.0]]), 4, interpolation="linear")
    assert frames.flatten().tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


def test_a_spline_through_evenly_spaced_keys_is_straight():
    # Wrapping bends the ends, so look at the piece whose four keys are in line.
    keys = torch.arange(8.0)[:, None]
    frames = loop_through(keys, 5, interpolation="spline")
    torch.testing.assert_close(frames[15:25, 0], torch.arange(15, 25) / 5)


def test_a_spline_turns_without_a_corner():
    keys = random_keys(6, 8).double()
    for interpolation, is_smooth in (("spline", True), ("linear", False)):
        frames = loop_through(keys, 1000, interpolation=interpolation)
        before = keys - frames[999::1000].roll(1, 0)
        after = frames[1::1000] - keys
        turn = (after - before).norm(dim=1) / before.norm(dim=1)
        # A curve's slope changes by its curvature over one step, here a hundredth of the slope.
        assert (turn < 0.05).all() == is_smooth


def test_a_spherical_path_keeps_to_the_sphere_of_its_keys():
    keys = torch.nn.functional.normalize(random_keys(4, 16), dim=1) * 4
    frames = loop_through(keys, 9, interpolation="spherical")
    torch.testing.assert_close(frames.norm(dim=1), torch.full((36,), 4.0))
    angles = torch.nn.functional.cosine_similarity(frames, frames.roll(-1, 0))
    torch.testing.assert_close(angles.view(4, 9), angles.view(4, 9)[:, :1].expand(4, 9))


@pytest.mark.parametrize(("num_keys", "frames_per_key"), [(0, 4), (3, 0)])
def test_a_loop_of_nothing_is_refused(num_keys, frames_per_key):
    with pytest.raises(ValueError, match="keys and frames"):
        loop_through(torch.zeros(num_keys, 4), frames_per_key)


def test_a_smooth_loop_has_unit_mean_square_and_small_steps():
    frames = smooth_loop(200, 64, sigma_frames=10, generator=generator_for("walk", seed=1))
    assert frames.shape == (200, 64)
    assert frames.dtype == torch.float32
    torch.testing.assert_close(frames.square().mean(), torch.tensor(1.0))
    # Of noise filtered by a Gaussian, the derivative's deviation is 1 / (sqrt(2) sigma).
    expected = (64**0.5) / (2**0.5 * 10)
    torch.testing.assert_close(steps(frames).mean(), torch.tensor(expected), rtol=0.1, atol=0)
    assert steps(frames)[-1] < 1.5 * steps(frames).mean()


def test_a_smooth_loop_is_a_wrapped_gaussian_filter():
    num, sigma = 40, 2.0
    frames = smooth_loop(num, 3, sigma_frames=sigma, generator=generator_for("walk", seed=1))
    noise = torch.randn(num, 3, generator=generator_for("walk", seed=1)).double()
    distance = torch.arange(num).double()
    distance = torch.minimum(distance, num - distance)
    kernel = torch.exp(-distance.square() / (2 * sigma**2))
    filtered = torch.stack([(kernel.roll(i)[:, None] * noise).sum(0) for i in range(num)])
    expected = (filtered / filtered.square().mean().sqrt()).float()
    # The filter is cut off in neither form, so they differ by rounding only.
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("num", [1, 2, 5])
def test_an_open_path_goes_from_the_first_key_to_the_last(interpolation, num):
    keys = random_keys(num, 3, 16)
    frames = walk_through(keys, 6, interpolation=interpolation)
    assert frames.shape == (6 * (num - 1) + 1, 3, 16)
    assert torch.equal(frames[::6], keys)
    assert frames.isfinite().all()


def test_an_open_path_is_the_loop_without_the_way_back():
    keys = random_keys(4, 16)
    loop, walk = (path(keys, 5, interpolation="linear") for path in (loop_through, walk_through))
    assert torch.equal(walk, loop[:16])
    straight = walk_through(torch.arange(4.0)[:, None], 5)
    torch.testing.assert_close(straight[:, 0], torch.arange(16) / 5)


@pytest.mark.parametrize(
    ("easing", "half", "is_slow_at_first", "is_slow_at_last"),
    [
        ("none", 0.5, False, False),
        ("in-out", 0.5, True, True),
        ("in", 1 - 0.5**0.5, True, False),
        ("out", 0.5**0.5, False, True),
    ],
)
def test_easing_starts_or_ends_at_rest(easing, half, is_slow_at_first, is_slow_at_last):
    assert (ease(0, easing), ease(1, easing)) == (0, pytest.approx(1))
    assert ease(0.5, easing) == pytest.approx(half)
    assert (ease(0.01, easing) < 0.005) == is_slow_at_first
    assert (1 - ease(0.99, easing) < 0.005) == is_slow_at_last
    frames = loop_through(torch.tensor([[0.0], [1.0]]), 4, interpolation="linear", easing=easing)
    assert frames[1].item() == pytest.approx(ease(0.25, easing))
    assert frames[5].item() == pytest.approx(1 - ease(0.25, easing))
