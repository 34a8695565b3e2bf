"""Sizes that all families have in common: resolutions, channels, and what they may be."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from stylegan.errors import ConfigError, check_not_negative, check_positive


class SizesConfig(Protocol):
    """The options that sizes follow from; see the families' dataclasses."""

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
    """List the resolutions of the blocks: 4, 8 and so on up to `resolution`."""
    return [2**level for level in range(2, resolution.bit_length())]


def check_sizes(config: SizesConfig) -> None:
    """Raise ConfigError unless a network of these sizes can be built."""
    resolution = config.resolution
    if resolution < 8 or resolution & (resolution - 1):
        raise ConfigError(
            f"resolution {resolution}",
            expected="a power of two from 8",
            fix="choose 8, 16, 32, 64, 128, 256, 512 or 1024",
        )
    if config.channel_base < resolution:
        raise ConfigError(
            f"channel_base {config.channel_base}",
            expected=f"at least the resolution, {resolution}",
            fix="raise it, so that the last block has a channel",
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
            f"mbstd_num_channels {num_channels}",
            expected=f"0, or a divisor of the {channels} channels at 4x4",
            fix="use 1",
        )


def single_images(images: Tensor | Sequence[Tensor], channels: int, side: int) -> Tensor:
    """Return images for a network that takes no mipmap.

    Raises:
        ValueError: if they are a mipmap of more than one size, or not [N, channels, side, side].
    """
    levels = [images] if isinstance(images, Tensor) else images
    if len(levels) != 1:
        raise ValueError(f"images must be of one size, got {len(levels)}")
    if list(levels[0].shape[1:]) != [channels, side, side]:
        raise ValueError(
            f"images must be [N, {channels}, {side}, {side}], got {list(levels[0].shape)}"
        )
    return levels[0]


HALF_RESOLUTIONS = 4
"""Resolutions, counted from the largest, that compute in float16 where a network does ..."""
SMALLEST_HALF = 8
"""... but none below this."""


def dtype_at(resolution: int, *, full: int, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a block computes.

    Source: Karras et al. 2020 (ADA), appendix, "mixed-precision training": float16 in the four
    highest resolutions.

    Args:
        resolution: of the block.
        full: of the network.
        dtype: its `compute_dtype`.
    """
    is_wide = resolution < max(full >> (HALF_RESOLUTIONS - 1), SMALLEST_HALF)
    return torch.float32 if dtype == torch.float16 and is_wide else dtype
