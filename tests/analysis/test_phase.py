import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from cases import grid
from stylegan.analysis.phase import row_over_time, stick_score, sticking


def path(*, glued, seed, side=64, num=13, speed=1.0, noise=0.0):
    """Frames of a blob that moves, with a fine texture that stays at its pixels, or moves along."""
    stream = torch.Generator().manual_seed(seed)
    texture = torch.randn(1, 1, 4 * side, 4 * side, generator=stream, dtype=torch.float64)
    texture = texture - F.avg_pool2d(texture, 5, stride=1, padding=2)
    angle = 2 * math.pi * torch.rand(1, generator=stream).item()
    axis = torch.arange(side, dtype=torch.float64)
    frames = []
    for step in range(num):
        x, y = (speed * step * f(angle) for f in (math.cos, math.sin))
        middle = [(num - 1) * speed / 2 * f(angle) for f in (math.cos, math.sin)]
        to_x, to_y = axis - side / 2 - x + middle[0], axis - side / 2 - y + middle[1]
        blob = torch.exp(-(to_x.square() + to_y[:, None].square()) / (2 * (side / 6) ** 2))
        shift_x, shift_y = (0.0, 0.0) if glued else (x, y)
        places = torch.stack(
            torch.broadcast_tensors(
                (2 * (axis - shift_x + 1.5 * side) + 1) / (4 * side) - 1,
                (2 * (axis[:, None] - shift_y + 1.5 * side) + 1) / (4 * side) - 1,
            ),
            dim=-1,
        )
        detail = F.grid_sample(texture, places[None], mode="bicubic", align_corners=False)[0, 0]
        grain = noise * torch.randn(side, side, generator=stream, dtype=torch.float64)
        frames.append(blob * (1 + 0.3 * detail) + grain)
    return torch.stack(frames)[:, None].expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    ("side", "speed", "noise"),
    [
        *grid([32, 64], [0.3, 1.0, 2.0], [0.0, 0.02]),
        *(
            pytest.param(128, speed, noise, marks=pytest.mark.slow)
            for speed, noise in itertools.product([0.3, 1.0, 2.0], [0.0, 0.02])
        ),
    ],
)
def test_glued_and_moving_detail_are_apart_by_five_standard_errors(side, speed, noise):
    options = {"side": side, "speed": speed, "noise": noise}
    glued = sticking([path(glued=True, seed=seed, **options) for seed in range(4)])
    moving = sticking([path(glued=False, seed=seed, **options) for seed in range(4)])
    error = math.hypot(glued.error, moving.error)
    assert glued.score - moving.score > 5 * error
    assert glued.score > 0.9
    assert moving.score < 0.3


def test_the_score_does_not_depend_on_brightness_and_contrast():
    frames = path(glued=False, seed=0)
    changed = stick_score(0.1 * frames + 7)
    assert changed == pytest.approx(stick_score(frames), abs=1e-3)


def test_what_does_not_move_has_no_score():
    still = torch.randn(1, 3, 32, 32).expand(9, -1, -1, -1)
    assert stick_score(still) is None
    assert stick_score(torch.zeros(9, 3, 32, 32)) is None
    assert stick_score(path(glued=True, seed=0)[:1]) is None
    both = sticking([still, path(glued=True, seed=0)])
    assert both.paths[0] is None
    assert both.score == both.paths[1]
    assert both.error is None
    nothing = sticking([still])
    assert (nothing.score, nothing.error) == (None, None)


def test_a_strip_stacks_one_row_of_all_frames():
    frames = torch.randint(0, 256, [5, 3, 8, 8], dtype=torch.uint8)
    frames[:, :, :3] = 7
    picture, row = row_over_time(frames, row=6)
    assert picture.shape == (3, 5, 8)
    assert row == 6
    assert torch.equal(picture[:, 2], frames[2, :, 6])
    frames[:, :, 4] = torch.tensor([0, 255, 0, 255, 0], dtype=torch.uint8)[:, None, None]
    assert row_over_time(frames)[1] == 4
