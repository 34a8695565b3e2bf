from types import SimpleNamespace

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.models.sizes import (
    block_resolutions,
    channels_at,
    check_minibatch_stddev,
    check_sizes,
    single_images,
)


def sizes(**options):
    defaults = {
        "resolution": 16,
        "img_channels": 3,
        "c_dim": 0,
        "channel_base": 64,
        "channel_max": 6,
    }
    config = SimpleNamespace(**defaults | options)
    config.size = ImageSize.of(config.resolution)
    return config


def test_channels_of_the_papers():
    config = sizes(channel_base=16384, channel_max=512)  # spec 1.2
    found = [channels_at(config, r) for r in block_resolutions(ImageSize(1024, 1024))]
    assert found == [512, 512, 512, 512, 256, 128, 64, 32, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 50}, r"the resolution 50 is \(25x25\) \* 2\^1; .* choose 48"),
        ({"resolution": 4}, r"the resolution 4 is \(4x4\) .*, and 1 or more doublings; choose 8"),
        ({"channel_base": 8}, "channel_base must be at least the resolution of the last block, 16"),
        ({"img_channels": 0}, "img_channels must be more than 0, got 0"),
        ({"channel_max": 0}, "channel_max must be more than 0, got 0"),
        ({"c_dim": -1}, "c_dim must be 0 or more, got -1"),
    ],
)
def test_sizes_that_cannot_work_are_refused(options, message):
    check_sizes(sizes())
    with pytest.raises(ConfigError, match=message):
        check_sizes(sizes(**options))


@pytest.mark.parametrize(
    ("group_size", "num_channels", "message"),
    [
        (0, 1, "mbstd_group_size must be more than 0, got 0"),
        (4, 4, "a divisor of the 6"),
        (4, -1, "at 4x4, got -1"),
    ],
)
def test_minibatch_statistics_that_cannot_work_are_refused(group_size, num_channels, message):
    for good in (0, 1, 3):
        check_minibatch_stddev(sizes(), group_size=4, num_channels=good)
    with pytest.raises(ConfigError, match=message):
        check_minibatch_stddev(sizes(), group_size=group_size, num_channels=num_channels)


def test_images_of_one_size_may_come_alone_or_as_a_list():
    images = torch.zeros(2, 3, 8, 8)
    assert single_images(images, 3, ImageSize(8, 8)) is images
    assert single_images([images], 3, ImageSize(8, 8)) is images
    with pytest.raises(ValueError, match="one size, got 2"):
        single_images([images, images], 3, ImageSize(8, 8))
    with pytest.raises(ValueError, match=r"\[N, 3, 16, 16\], got \[2, 3, 8, 8\]"):
        single_images(images, 3, ImageSize(16, 16))
