"""Sizes that all families have in common: resolutions, channels, and their limits."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from stylegan.errors import ConfigError, check_not_negative, check_positive


class SizesConfig(Protocol):
    """Options that every network has; see the families' dataclasses."""

    @property
    def resolution(self) -> int: ...  # noqa: D102
    @property
    def img_channels(self) -> int: ...  # noqa: D102
    @property
    def c_dim(self) -> int: ...  # noqa: D102
    @property
    def channel_base(self) -> int: ...  # noqa: D102
    @property
    def channel_max(self) -> int: ...  # noqa: D102


def channels_at(config: SizesConfig, resolution: int) -> int:
    """Return the channels of the block at a resolution."""
    return min(config.channel_base // resolution, config.channel_max)


def resolutions_up_to(resolution: int) -> list[int]:
    """Return the resolutions of the blocks: 4, 8 and so on up to `resolution`."""
    return [2**level for level in range(2, resolution.bit_length())]


def check_sizes(config: SizesConfig) -> None:
    """Raise ConfigError unless a network of these sizes can be built."""
    resolution = config.resolution
    if resolution < 8 or resolution & (resolution - 1):
        raise ConfigError(f"resolution must be a power of two from 8, got {resolution}")
    if config.channel_base < resolution:
        raise ConfigError(
            f"channel_base must be at least the resolution, {resolution}, so that the last block "
            f"has a channel, got {config.channel_base}"
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


def single_images(images: Tensor | Sequence[Tensor], channels: int, resolution: int) -> Tensor:
    """Return images for a network that takes no image pyramid.

    Raises:
        ValueError: if they are a pyramid of more than one level, or not
            [N, channels, resolution, resolution].
    """
    levels = [images] if isinstance(images, Tensor) else images
    if len(levels) != 1:
        raise ValueError(f"images must be of one size, got {len(levels)}")
    if list(levels[0].shape[1:]) != [channels, resolution, resolution]:
        raise ValueError(
            f"images must be [N, {channels}, {resolution}, {resolution}], "
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
        resolution: of the block.
        full: resolution of the network.
        dtype: the network's `compute_dtype`.
    """
    is_wide = resolution < max(full >> (HALF_RESOLUTIONS - 1), SMALLEST_HALF)
    return torch.float32 if dtype == torch.float16 and is_wide else dtype
