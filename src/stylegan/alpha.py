"""Colors with alpha: premultiplied inside, straight in files.

Inside, colors are multiplied by alpha, as a mean of straight colors would let the invisible color
of transparent pixels shine through at soft edges. In [-1, 1], black and fully transparent are -1.

Source: Porter and Duff 1984, "Compositing Digital Images".
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def premultiply(x: Tensor) -> Tensor:
    """Multiply straight colors of RGBA [..., 4, H, W] in [-1, 1] by their alpha."""
    color, alpha = x[..., :3, :, :], x[..., 3:, :, :]
    return torch.cat([(color + 1) * (alpha + 1) / 2 - 1, alpha], dim=-3)


def compose(x: Tensor, background: float | Tensor) -> Tensor:
    """Compose premultiplied RGBA [..., 4, H, W] in [-1, 1] on a color: RGB [..., 3, H, W].

    Args:
        x: the images.
        background: in [-1, 1]; a number, or a tensor that broadcasts with the result.
    """
    color, alpha = x[..., :3, :, :], x[..., 3:, :, :]
    return color + (1 - alpha) / 2 * (background + 1)


def straight(x: Tensor, *, levels: int = 255) -> Tensor:
    """Divide the colors of premultiplied RGBA by alpha, the inverse of `premultiply`.

    Transparent pixels get the color of the nearest visible ones, as programs that enlarge a picture
    mix the color of both.

    Args:
        x: [..., 4, H, W] in [-1, 1].
        levels: largest integer of the stored alpha; below half a level a pixel is transparent.
    """
    color = (x[..., :3, :, :] + 1).clamp_min(0) / 2
    alpha = ((x[..., 3:, :, :] + 1) / 2).clamp(0, 1)
    is_visible = alpha >= 0.5 / levels
    weight = alpha * is_visible
    straight = torch.where(is_visible, color / alpha.clamp_min(0.5 / levels), 0.0)
    straight = torch.where(is_visible, straight, _spread(straight * weight, weight)).clamp(0, 1)
    return torch.cat([straight, alpha], dim=-3) * 2 - 1


def _spread(color: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean color around each pixel without weight, black if there is none.

    Means over squares of growing size (an image pyramid) are taken until one has weight.

    Args:
        color: multiplied by the weight, [..., 3, H, W].
        weight: [..., 1, H, W].
    """
    mean = torch.where(weight > 0, color / weight.clamp_min(1e-12), 0.0)
    height, width = weight.shape[-2:]
    if bool((weight > 0).all()) or max(height, width) == 1:
        return mean
    smaller_color, smaller_weight = (
        F.avg_pool2d(each.flatten(0, -4) if each.ndim > 3 else each[None], 2, ceil_mode=True)
        for each in (color, weight)
    )
    wider = _spread(smaller_color, smaller_weight).repeat_interleave(2, -2).repeat_interleave(2, -1)
    wider = wider[..., :height, :width].reshape(color.shape)
    return torch.where(weight > 0, mean, wider)
