"""Resampling without a filter, and the fades of progressive growing.

Upsampling repeats the nearest pixel, downsampling takes means of 2x2 pixels.

Source: Karras et al. 2018 (ProGAN), section 2 and figure 2.
"""

import torch.nn.functional as F
from torch import Tensor


def upsample_nearest(x: Tensor, *, factor: int = 2) -> Tensor:
    """Repeat each pixel of [N, C, H, W] `factor` times along both axes."""
    return x if factor == 1 else F.interpolate(x, scale_factor=float(factor), mode="nearest")


def downsample_box(x: Tensor, *, factor: int = 2) -> Tensor:
    """Replace squares of factor x factor pixels of [N, C, H, W] by their mean."""
    return x if factor == 1 else F.avg_pool2d(x, factor)


def fade(images: Tensor, weight: float) -> Tensor:
    """Mix real images [N, C, H, W] with their own half resolution, as in progressive growing.

    Args:
        images: at the larger of the two resolutions.
        weight: weight of the smaller resolution; 0 changes nothing.
    """
    if weight == 0:
        return images
    return images.lerp(upsample_nearest(downsample_box(images)), weight)


def fade_in(rgbs: list[Tensor], weight: float) -> Tensor:
    """Mix the generated RGB of two resolutions, smaller first; a single one stays as it is.

    Args:
        rgbs: one or two images [N, C, H, W].
        weight: weight of the smaller resolution.
    """
    image = rgbs[0]
    for rgb in rgbs[1:]:
        image = rgb.lerp(upsample_nearest(image), weight)
    return image


def image_pyramid(images: Tensor, *, num_levels: int) -> list[Tensor]:
    """Return images [N, C, H, W] at `num_levels` sizes, each half of the previous, box-filtered.

    Source: Karnewar and Wang 2020 (MSG-GAN), section 3.
    """
    levels = [images]
    while len(levels) < num_levels:
        levels.append(downsample_box(levels[-1]))
    return levels
