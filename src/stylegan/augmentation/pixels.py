"""Transforms of pixel values: color, frequency bands, noise and cutout.

With alpha, images are premultiplied RGBA. Their colors are transformed as if the image was opaque,
and premultiplied again, which needs no division: the color relative to mid-grey, times alpha, is
`rgb + 1 - a` with a = (alpha + 1) / 2. Alpha itself is never changed by a transform of colors.

Source: Karras et al. 2020 (ADA), appendix B.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.augmentation.parameters import CUTOUT_SIDE
from stylegan.augmentation.wavelets import band_filters

_HUE_CHANNELS = 3


def color_matrices(
    values: Mapping[str, Tensor], num_channels: int, *, has_alpha: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the gains [N, C, C] and offsets [N, C] of pixel values, float64.

    The luma axis is the diagonal of the color space, for any number of channels. Hue needs three
    channels, and is left out for others.

    Args:
        values: of `AugmentParameters`.
        num_channels: C.
        has_alpha: whether the images are premultiplied RGBA; alpha is left as it is.
    """
    if has_alpha:
        return _with_alpha(*color_matrices(values, num_channels - 1))
    num = len(next(iter(values.values())))
    identity = torch.eye(num_channels, dtype=torch.float64)
    gain = identity.expand(num, -1, -1)
    offset = torch.zeros([num, num_channels], dtype=torch.float64)
    luma = torch.full([num_channels, num_channels], 1 / num_channels, dtype=torch.float64)
    if "brightness" in values:
        offset = offset + values["brightness"]
    steps = []
    if "contrast" in values:
        steps.append(identity * values["contrast"][..., None])
    if "luma_flip" in values:
        steps.append(identity - 2 * luma * values["luma_flip"][..., None])
    if "hue" in values and num_channels == _HUE_CHANNELS:
        steps.append(_rotation_about_luma(values["hue"]))
    if "saturation" in values:
        steps.append(luma + (identity - luma) * values["saturation"][..., None])
    for step in steps:
        gain, offset = step @ gain, (step @ offset[..., None])[..., 0]
    return gain, offset


def _with_alpha(gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return gains and offsets of premultiplied RGBA from those of opaque RGB.

    With q = p + 1 - a, the color p becomes `gain q + a offset - 1 + a`, and a = (alpha + 1) / 2.

    Args:
        gain: [N, 3, 3].
        offset: [N, 3].
    """
    num, size = offset.shape
    of_one = gain.sum(dim=2)
    gains = torch.zeros([num, size + 1, size + 1], dtype=gain.dtype)
    offsets = torch.zeros([num, size + 1], dtype=gain.dtype)
    gains[:, :size, :size] = gain
    gains[:, :size, size] = (1 + offset - of_one) / 2
    gains[:, size, size] = 1
    offsets[:, :size] = (of_one + offset - 1) / 2
    return gains, offsets


def split_alpha(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the colors of premultiplied RGBA relative to mid-grey, times alpha, and alpha in 0..1.

    Args:
        images: [N, 4, H, W] in [-1, 1].

    Returns:
        [N, 3, H, W] and [N, 1, H, W].
    """
    alpha = (images[:, 3:] + 1) / 2
    return images[:, :3] + 1 - alpha, alpha


def join_alpha(color: Tensor, alpha: Tensor) -> Tensor:
    """Return premultiplied RGBA [N, 4, H, W] from the result of `split_alpha`."""
    return torch.cat([color - 1 + alpha, 2 * alpha - 1], dim=1)


def recolor(images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Multiply the channels of [N, C, H, W] by [N, C, C], and add [N, C]."""
    gain, offset = gain.to(images), offset.to(images)
    return torch.baddbmm(offset[..., None], gain, images.flatten(2)).view_as(images)


def amplify_bands(images: Tensor, gains: Tensor) -> Tensor:
    """Amplify frequency bands, with reflection at the border.

    Args:
        images: [N, C, H, W].
        gains: of each band, [N, NUM_BANDS].
    """
    taps = (gains @ band_filters()).to(images)  # [N, T]
    num, channels, height, width = images.shape
    reach = taps.shape[1] // 2
    # Repeated reflections: the filter can be longer than a small image.
    x = images
    for axis, size in ((3, width), (2, height)):
        x = x.index_select(axis, _reflected(size, reach).to(x.device))
    kernel = taps.flip(1).repeat_interleave(channels, dim=0)[:, None]
    x = x.reshape(1, num * channels, *x.shape[2:])
    x = F.conv2d(x, kernel[:, :, None], groups=num * channels)
    x = F.conv2d(x, kernel[..., None], groups=num * channels)
    return x.reshape(images.shape)


def add_noise(images: Tensor, std: Tensor, seeds: Tensor) -> Tensor:
    """Add normal noise to each pixel and channel.

    Args:
        images: [N, C, H, W].
        std: of each image, [N, 1].
        seeds: whole numbers, of each image, [N, 1].
    """
    noise = torch.zeros_like(images)
    for index in std[:, 0].nonzero()[:, 0].tolist():
        generator = torch.Generator(images.device).manual_seed(int(seeds[index]))
        noise[index].normal_(0, float(std[index]), generator=generator)
    return images + noise


def cut_out(images: Tensor, centers: Tensor, *, level: float = 0.0) -> Tensor:
    """Set a rectangle to a level.

    Args:
        images: [N, C, H, W].
        centers: of the rectangles, x and y in fractions of the image, [N, 2].
        level: 0 for mid-grey; -1 for transparent.
    """
    height, width = images.shape[2:]
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    is_outside_x = (x - centers[:, :1]).abs() >= CUTOUT_SIDE / 2
    is_outside_y = (y - centers[:, 1:]).abs() >= CUTOUT_SIDE / 2
    keep = is_outside_y[:, None, :, None] | is_outside_x[:, None, None, :]
    keep = keep.to(images)
    return images * keep if level == 0 else (images - level) * keep + level


def _rotation_about_luma(angle: Tensor) -> Tensor:
    """Return rotations about (1, 1, 1) by angles [N, 1] in radians, [N, 3, 3].

    Source: Rodrigues' rotation formula.
    """
    axis = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]], dtype=angle.dtype)
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    return cos * torch.eye(3, dtype=angle.dtype) + sin * cross + (1 - cos) / 3


def _reflected(size: int, reach: int) -> Tensor:
    """Return the pixels from `-reach` to `size + reach`, reflected at the borders."""
    period = max(2 * size - 2, 1)
    position = torch.arange(-reach, size + reach).remainder(period)
    return position.minimum(period - position)
