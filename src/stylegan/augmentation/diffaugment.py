"""Differentiable augmentation with fixed strength.

Source: Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", section 3
and appendix A, policy "color, translation, cutout".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.augmentation.draws import Draws
from stylegan.augmentation.parameters import CUTOUT_SIDE, AugmentParameters
from stylegan.augmentation.pixels import join_alpha, split_alpha

_MAX_SHIFT = 0.125  # fraction of the image


def draw_diffaugment(draws: Draws) -> AugmentParameters:
    """Draw what `diffaugment` does to each image of a batch; it does all of it to each."""
    return AugmentParameters(
        values={
            "brightness": draws.uniform(-0.5, 0.5),
            "saturation": draws.uniform(0, 2),
            "contrast": draws.uniform(0.5, 1.5),
            "shift": draws.uniform(0, 1, num=2),
            "cutout": draws.uniform(0, 1, num=2),
        }
    )


def diffaugment(
    images: Tensor, parameters: AugmentParameters, *, has_alpha: bool = False
) -> Tensor:
    """Change colors, shift and cut out a square, in this order.

    With alpha, colors change in proportion to alpha, which stays, means are weighted by it, and
    pixels beyond the border and in the square are transparent.

    Args:
        images: [N, C, H, W] in [-1, 1]. Values of the result are not clamped.
        parameters: of `draw_diffaugment`, of as many images.
        has_alpha: whether the images are premultiplied RGBA.
    """
    values = parameters.values
    brightness, saturation, contrast = (
        values[name].to(images)[..., None, None]
        for name in ("brightness", "saturation", "contrast")
    )
    if has_alpha:
        color, alpha = split_alpha(images)
        color = color + brightness * alpha
        grey = color.mean(dim=1, keepdim=True)
        color = (color - grey) * saturation + grey
        visible = alpha.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-4)
        mean = color.mean(dim=(1, 2, 3), keepdim=True) / visible
        color = (color - mean * alpha) * contrast + mean * alpha
        # zeros are transparent black
        images = join_alpha(color, alpha) + 1
        return _cut_out(_shift(images, values["shift"]), values["cutout"]) - 1
    images = images + brightness
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * saturation + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean
    return _cut_out(_shift(images, values["shift"]), values["cutout"])


def _shift(images: Tensor, fractions: Tensor) -> Tensor:
    """Shift by whole pixels, up to `_MAX_SHIFT`, with zeros outside.

    Args:
        images: [N, C, H, W].
        fractions: from 0 to below 1: uniform over the shifts in x and y, [N, 2].
    """
    for axis, column in ((3, 0), (2, 1)):
        size = images.shape[axis]
        largest = round(_MAX_SHIFT * size)
        shift = (fractions[:, column] * (2 * largest + 1)).floor().long() - largest
        # a border of zeros, and for each image the index of each pixel in the padded image
        padding = [largest, largest, 0, 0] if axis == 3 else [0, 0, largest, largest]
        index = largest + torch.arange(size) - shift[:, None]
        shape = [len(images), 1, 1, size] if axis == 3 else [len(images), 1, size, 1]
        index = index.to(images.device).view(shape).expand_as(images)
        images = F.pad(images, padding).gather(axis, index)
    return images


def _cut_out(images: Tensor, fractions: Tensor) -> Tensor:
    """Set a square of half the size to zero, which may reach over the border.

    Args:
        images: [N, C, H, W].
        fractions: from 0 to below 1: uniform over the centers in x and y, [N, 2].
    """
    is_inside = []
    for size, column in ((images.shape[3], 0), (images.shape[2], 1)):
        side = round(CUTOUT_SIDE * size)
        center = (fractions[:, column] * (size + 1 - side % 2)).floor()[:, None]
        offset = torch.arange(size) - (center - side // 2)
        is_inside.append((offset >= 0) & (offset < side))
    cut = is_inside[1][:, None, :, None] & is_inside[0][:, None, None, :]
    return images * (~cut).to(images)
