"""From StyleGAN's layer to StyleGAN2's, in four stages on the same parameters.

A box begins with features as the last activation left them, and ends after the next one: one
style to a box, as figure 2b redraws them. StyleGAN counts its layers from convolution to
convolution, so that a box of (a) is the end of one of its layers and the start of the next.

Source: Karras et al. 2020 (StyleGAN2), section 2 and figure 2.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.nn.equalized import HE_GAIN, EqualizedLinear
from stylegan.ops.bias_act import bias_act
from stylegan.ops.modulated_conv import modulated_conv2d
from stylegan.ops.normalize import adain

EPS = 1e-8

Stage = Literal["a", "b", "c", "d"]


def stage_a(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """StyleGAN: AdaIN, convolution, noise and bias, activation.

    Args:
        x: [N, I, H, W].
        scale: the style's standard deviations, [N, I].
        shift: the style's means, [N, I]; stages c and d have no use for it.
        weight: [O, I, 3, 3].
        offset: bias, and scaled noise if there is any; broadcasts against [N, O, H, W].

    Returns:
        [N, O, H, W]. All stages take and return the same.
    """
    x = adain(x, scale, shift)
    x = F.conv2d(x, weight, padding=1)
    return bias_act(x + offset, act="lrelu", gain=1)


def stage_b(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """The same in full detail: AdaIN is a normalization and a modulation of mean and deviation."""
    x = (x - _mean(x)) / _stddev(x)
    x = x * scale[:, :, None, None] + shift[:, :, None, None]
    x = F.conv2d(x, weight, padding=1)
    return bias_act(x + offset, act="lrelu", gain=1)


def stage_c(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Revised: no means, and noise and bias outside of what a style acts on.

    The normalization that undoes a style now stands right behind the convolution.
    """
    x = x * scale[:, :, None, None]
    x = F.conv2d(x, weight, padding=1)
    x = x / _stddev(x)
    return bias_act(x + offset, act="lrelu", gain=1)


def stage_d(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """StyleGAN2: the deviation that stage c measures is the one that the weights predict.

    The prediction holds for independent inputs of unit variance; what differs from that is left
    in the features, which then have nothing to gain from a droplet.
    """
    x = modulated_conv2d(x, weight, scale)
    return bias_act(x + offset, act="lrelu", gain=1)


STAGES = {"a": stage_a, "b": stage_b, "c": stage_c, "d": stage_d}


class StyleBox(nn.Module):
    """One style, one 3x3 convolution, in any of the four stages.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: width of w.
        stage: letter of figure 2; may be changed at any time, as parameters are the same.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, stage: Stage = "d"
    ) -> None:
        super().__init__()
        self.stage = stage
        self.scale = HE_GAIN / math.sqrt(in_channels * 9)
        self.affine = EqualizedLinear(w_dim, 2 * in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map [N, in_channels, H, W], w [N, w_dim] and noise [N, 1, H, W] to [N, O, H, W]."""
        scale, shift = self.affine(w).chunk(2, dim=1)
        offset = self.bias[:, None, None]
        if noise is not None:
            offset = offset + noise * self.noise_strength[:, None, None]
        return STAGES[self.stage](x, scale + 1, shift, self.weight * self.scale, offset)

    def extra_repr(self) -> str:
        """Show in `print(model)` what the parts do not tell."""
        return f"{list(self.weight.shape)}, stage {self.stage}"


def _mean(x: Tensor) -> Tensor:
    """Return the mean of each feature map, [N, C, 1, 1]."""
    return x.mean(dim=(2, 3), keepdim=True)


def _stddev(x: Tensor) -> Tensor:
    """Return the standard deviation of each feature map, [N, C, 1, 1]."""
    return ((x - _mean(x)).square().mean(dim=(2, 3), keepdim=True) + EPS).sqrt()
