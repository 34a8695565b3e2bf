from dataclasses import dataclass

import pytest
import torch
from torch import nn

from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.latent.drag import DragConfig, Dragger, sample
from stylegan.models.base import AbstractGenerator, AbstractSynthesis


@dataclass(frozen=True, kw_only=True)
class BlobConfig:
    z_dim: int = 4
    c_dim: int = 0
    img_channels: int = 1
    resolution: int = 64

    @property
    def size(self):
        return ImageSize(64, 64)


class Blobs(nn.Module):
    """Two Gaussian blobs in two channels; 4 times the latent [1, 4] gives their x, y, x and y."""

    def forward(self, w):
        places = torch.arange(32, dtype=torch.float32) * 63 / 31  # in pixels of the image
        maps = [
            torch.exp(-((places - 4 * x) ** 2)[None] / 20 - ((places - 4 * y) ** 2)[:, None] / 20)
            for x, y in w[0].view(2, 2)
        ]
        return torch.stack(maps)[None]


class BlobSynthesis(AbstractSynthesis):
    def __init__(self):
        super().__init__(ImageSize(64, 64), num_ws=2)
        self.b32 = Blobs()
        self.noop = nn.Parameter(torch.zeros(1))

    def forward(self, ws, noise_mode="const", generator=None):
        return self.b32(ws[:, 0]).sum(dim=1, keepdim=True)


class BlobGenerator(AbstractGenerator):
    def __init__(self):
        super().__init__(BlobConfig(), mapping=nn.Identity(), synthesis=BlobSynthesis(), w_dim=4)

    def update_w_avg(self, ws, beta):
        raise NotImplementedError


START = torch.tensor([5.0, 5.0, 10.0, 10.0]).expand(1, 2, 4)  # centers (20, 20) and (40, 40)


def drag(num_steps=200, **options):
    config = DragConfig(learning_rate=0.02, tracking_radius=4, motion_radius=3)
    dragger = Dragger(BlobGenerator().eval(), START, config=config, **options)
    for _ in range(num_steps):
        dragger.advance()
        if dragger.is_done:
            break
    return dragger


def test_a_feature_moves_to_its_target_by_its_own_coordinates():
    dragger = drag(handles=[(20, 20)], targets=[(28, 23)])
    assert dragger.is_done
    assert 0 < dragger.step < 200
    x, y, *other = dragger.ws[0, 0].tolist()
    assert 4 * x == pytest.approx(28, abs=1.5)
    assert 4 * y == pytest.approx(23, abs=1.5)
    assert other == pytest.approx([10, 10], abs=0.75)  # Adam follows tiny gradients


def test_two_handles_move_at_once_and_later_layers_stay():
    dragger = drag(handles=[(20, 20), (40, 40)], targets=[(24, 20), (40, 34)])
    assert max(dragger.distances) <= 1
    centers = 4 * dragger.ws[0, 0]
    torch.testing.assert_close(centers, torch.tensor([24.0, 20, 40, 34]), atol=2, rtol=0)
    config = DragConfig(num_layers=1, learning_rate=0.02)
    only_first = Dragger(
        BlobGenerator().eval(), START, handles=[(20, 20)], targets=[(24, 20)], config=config
    )
    only_first.advance()
    assert torch.equal(only_first.ws[:, 1], START[:, 1])
    assert not torch.equal(only_first.ws[:, 0], START[:, 0])


def test_what_is_outside_the_mask_stays():
    mask = torch.zeros(64, 64, dtype=torch.bool)  # nothing may change
    free = drag(num_steps=60, handles=[(20, 20)], targets=[(28, 20)])
    held = drag(num_steps=60, handles=[(20, 20)], targets=[(28, 20)], mask=mask)
    moved = [(each.ws - START).norm().item() for each in (free, held)]
    assert moved[1] < moved[0] / 2
    everything = drag(num_steps=60, handles=[(20, 20)], targets=[(28, 20)], mask=~mask)
    assert torch.equal(everything.ws, free.ws)


def test_a_handle_at_its_target_changes_nothing():
    dragger = drag(handles=[(20, 20)], targets=[(20, 20)])
    assert dragger.step == 0
    assert torch.equal(dragger.ws, START)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"handles": [], "targets": []}, "a target for each handle"),
        ({"handles": [(1, 1)], "targets": [(1, 1), (2, 2)]}, "1 handles and 2 targets"),
        ({"handles": [(64, 1)], "targets": [(1, 1)]}, "outside the image"),
        ({"handles": [(1, 1)], "targets": [(1, -1)]}, "outside the image"),
        (
            {"handles": [(1, 1)], "targets": [(1, 1)], "mask": torch.ones(8, 8) > 0},
            "the mask must be",
        ),
    ],
)
def test_points_and_masks_must_fit_the_image(options, message):
    with pytest.raises(ConfigError, match=message):
        Dragger(BlobGenerator(), START, **options)


def test_features_are_interpolated_between_pixels():
    features = torch.arange(12.0).view(1, 3, 4)
    points = torch.tensor([[0.0, 0.0], [3.0, 2.0], [0.5, 0.0], [1.0, 1.25], [9.0, 0.0]])
    torch.testing.assert_close(sample(features, points)[0], torch.tensor([0, 11, 0.5, 6, 3.0]))


@pytest.mark.parametrize("value", [{"learning_rate": 0}, {"mask_weight": -1}, {"num_layers": 0}])
def test_options_are_checked(value):
    with pytest.raises(ConfigError):
        DragConfig(**value)
