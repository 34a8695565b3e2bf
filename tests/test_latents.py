import math

import pytest
import torch

from stylegan.latents import broadcast, lerp, mix, slerp, truncate


def test_broadcast_repeats_w():
    w = torch.randn(2, 3)
    ws = broadcast(w, 4)
    assert ws.shape == (2, 4, 3)
    assert all(torch.equal(ws[:, index], w) for index in range(4))


def test_truncate_interpolates_to_the_mean_up_to_the_cutoff():
    ws, mean = torch.randn(2, 4, 3), torch.randn(3)
    assert torch.equal(truncate(ws, mean, 1), ws)
    torch.testing.assert_close(truncate(ws, mean, 0), mean.expand(2, 4, 3))
    torch.testing.assert_close(truncate(ws, mean, -1), 2 * mean - ws)
    half = truncate(ws, mean, 0.5, cutoff=1)
    torch.testing.assert_close(half[:, 0], (ws[:, 0] + mean) / 2)
    assert torch.equal(half[:, 1:], ws[:, 1:])


def test_mix_takes_the_other_from_the_crossover_on():
    a, b = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    assert mix(a, b, 3)[0, :, 0].tolist() == [0, 0, 0, 1]
    assert torch.equal(mix(a, b, 0), b)
    assert torch.equal(mix(a, b, 4), a)


def test_lerp_meets_both_ends():
    a, b = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(lerp(a, b, 0.0), a)
    torch.testing.assert_close(lerp(a, b, 1.0), b)
    torch.testing.assert_close(lerp(a, b, torch.tensor(0.25)), 0.75 * a + 0.25 * b)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_turns_by_a_share_of_the_angle(t):
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0])
    expected = torch.tensor([math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)])
    torch.testing.assert_close(slerp(a, b, t), expected, rtol=0, atol=1e-6)


def test_slerp_of_equal_or_opposite_directions_stays_finite():
    a = torch.randn(8)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), a / a.norm(), rtol=0, atol=1e-3)
    assert torch.isfinite(slerp(a, -a, 0.5)).all()
