import pytest
import torch
import torch.nn.functional as F

from stylegan.image_size import ImageSize
from stylegan.nn.progressive import DiscriminatorBlock, DiscriminatorHead, discriminate
from stylegan.ops.box import downsample_box


class Tower(torch.nn.Module):
    """Blocks at 16 and 8, and the head."""

    def __init__(self):
        super().__init__()
        self.b16 = DiscriminatorBlock(3, 4, 5, blur=True)
        self.b8 = DiscriminatorBlock(3, 5, 6, blur=True)
        self.b4 = DiscriminatorHead(
            3, 6, base=ImageSize(4, 4), out_features=2, mbstd_group_size=2, mbstd_num_channels=1
        )


def test_separate_operations_average_after_the_activation():
    joined, apart = DiscriminatorBlock(3, 4, 5), DiscriminatorBlock(3, 4, 5, fused=False)
    assert joined.state_dict().keys() == apart.state_dict().keys()
    joined.load_state_dict(apart.state_dict())
    x = torch.randn(2, 4, 8, 8)
    y = joined.conv0(x)
    y = F.conv2d(y, apart.conv1.weight * apart.conv1.scale, padding=1)
    torch.testing.assert_close(apart(x), downsample_box(F.leaky_relu(y, 0.2)))
    torch.testing.assert_close(joined(x), F.leaky_relu(downsample_box(y), 0.2))
    assert (apart(x) - joined(x)).abs().max() > 1e-2


def test_blur_needs_joined_operations():
    with pytest.raises(ValueError, match="only together with fused"):
        DiscriminatorBlock(3, 4, 5, blur=True, fused=False)


@pytest.mark.parametrize("channels", [0, 1, 2])
def test_the_head_appends_minibatch_statistics(channels):
    head = DiscriminatorHead(
        3, 6, base=ImageSize(4, 4), out_features=2, mbstd_group_size=2, mbstd_num_channels=channels
    )
    assert head.conv.weight.shape == (6, 6 + channels, 3, 3)
    assert head(torch.randn(4, 6, 4, 4)).shape == (4, 2)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_images_enter_at_their_own_resolution(side):
    tower, images = Tower(), torch.randn(2, 3, side, side)
    x = tower.get_submodule(f"b{side}").fromrgb(images)
    for resolution in (16, 8):
        if resolution <= side:
            x = tower.get_submodule(f"b{resolution}")(x)
    torch.testing.assert_close(discriminate(tower, images, resolution=side), tower.b4(x))


def test_a_fade_mixes_features_below_the_first_block():
    tower, images = Tower(), torch.randn(2, 3, 16, 16)
    large = tower.b16(tower.b16.fromrgb(images))
    small = tower.b8.fromrgb(downsample_box(images))
    expected = tower.b4(tower.b8(0.75 * large + 0.25 * small))
    torch.testing.assert_close(discriminate(tower, images, resolution=16, weight=0.25), expected)
