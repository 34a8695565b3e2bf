"""Sizes that all families have in common: resolutions, channels, and their limits."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from stylegan.errors import ConfigError, check_not_negative, check_positive
from stylegan.image_size import ImageSize, Resolution, require_usable, stored_resolution


class Sized:
    """What the options of every network have in common: the size of the images as an object."""

    resolution: Resolution

    @property
    def size(self) -> ImageSize:
        """Height and width of the images."""
        return ImageSize.of(self.resolution)


class SizesConfig(Protocol):
    """Options that every network has; see the families' dataclasses."""

    @property
    def resolution(self) -> Resolution: ...  # noqa: D102
    @property
    def size(self) -> ImageSize: ...  # noqa: D102
    @property
    def img_channels(self) -> int: ...  # noqa: D102
    @property
    def c_dim(self) -> int: ...  # noqa: D102
    @property
    def channel_base(self) -> int: ...  # noqa: D102
    @property
    def channel_max(self) -> int: ...  # noqa: D102


def channels_at(config: SizesConfig, resolution: int) -> int:
    """Return the channels of the block at a nominal resolution."""
    return min(config.channel_base // resolution, config.channel_max)


def block_resolutions(size: ImageSize) -> list[int]:
    """Return the nominal resolutions of the blocks: 4, 8 and so on."""
    return [2**level for level in range(2, size.nominal.bit_length())]


def check_sizes(config: SizesConfig) -> None:
    """Raise ConfigError unless a network of these sizes can be built."""
    # one form for each size, so that equal configs are equal
    object.__setattr__(config, "resolution", stored_resolution(config.resolution))
    nominal = require_usable(config.size, doublings=1).nominal
    if config.channel_base < nominal:
        raise ConfigError(
            f"channel_base must be at least the resolution of the last block, {nominal}, so that "
            f"it has a channel, got {config.channel_base}"
        )
    check_positive("img_channels", config.img_channels)
    check_positive("channel_max", config.channel_max)
    check_not_negative("c_dim", config.c_dim)


def check_minibatch_stddev(
    config: SizesConfig, *, group_size: int | None, num_channels: int
) -> None:
    """Raise ConfigError unless the minibatch standard deviation fits the channels at 4x4."""
    if group_size is not None:
        check_positive("mbstd_group_size", group_size)
    channels = channels_at(config, 4)
    if num_channels < 0 or (num_channels and channels % num_channels):
        raise ConfigError(
            f"mbstd_num_channels must be 0 or a divisor of the {channels} channels at 4x4, "
            f"got {num_channels}"
        )


def single_images(images: Tensor | Sequence[Tensor], channels: int, size: ImageSize) -> Tensor:
    """Return images for a network that takes no image pyramid.

    Raises:
        ValueError: if they are a pyramid of more than one level, or not
            [N, channels, height, width].
    """
    levels = [images] if isinstance(images, Tensor) else images
    if len(levels) != 1:
        raise ValueError(f"images must be of one size, got {len(levels)}")
    if list(levels[0].shape[1:]) != [channels, size.height, size.width]:
        raise ValueError(
            f"images must be [N, {channels}, {size.height}, {size.width}], "
            f"got {list(levels[0].shape)}"
        )
    return levels[0]


HALF_RESOLUTIONS = 4
"""With float16, blocks compute in it at this many of the largest resolutions ..."""
SMALLEST_HALF = 8
"""... but not below this resolution."""


def dtype_at(resolution: int, *, full: int, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a block computes.

    Source: Karras et al. 2020 (ADA), appendix, "mixed-precision training": float16 in the four
    highest resolutions.

    Args:
        resolution: nominal resolution of the block.
        full: nominal resolution of the network.
        dtype: the network's `compute_dtype`.
    """
    is_wide = resolution < max(full >> (HALF_RESOLUTIONS - 1), SMALLEST_HALF)
    return torch.float32 if dtype == torch.float16 and is_wide else dtype
