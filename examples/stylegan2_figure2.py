"""From StyleGAN's layer to StyleGAN2's, in four stages with the same parameters.

A box has one style. It starts after one activation and ends after the next one, as in figure 2b.
StyleGAN's layers start at a convolution, so a box of (a) is the end of one of its layers and the
start of the next.

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
        shift: the style's means, [N, I]; not used in stages c and d.
        weight: [O, I, 3, 3].
        offset: bias, and scaled noise if there is any; broadcasts against [N, O, H, W].

    Returns:
        [N, O, H, W]. All stages have the same arguments and result.
    """
    x = adain(x, scale, shift)
    x = F.conv2d(x, weight, padding=1)
    return bias_act(x + offset, act="lrelu", gain=1)


def stage_b(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """The same in detail: AdaIN is a normalization and a modulation of mean and std."""
    x = (x - _mean(x)) / _stddev(x)
    x = x * scale[:, :, None, None] + shift[:, :, None, None]
    x = F.conv2d(x, weight, padding=1)
    return bias_act(x + offset, act="lrelu", gain=1)


def stage_c(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Revised: no means, and noise and bias after the operations of a style.

    The normalization that undoes a style now directly follows the convolution.
    """
    x = x * scale[:, :, None, None]
    x = F.conv2d(x, weight, padding=1)
    x = x / _stddev(x)
    return bias_act(x + offset, act="lrelu", gain=1)


def stage_d(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """StyleGAN2: the measured std of stage c is replaced by the std that the weights predict.

    The prediction holds for independent inputs of unit variance. Other statistics pass unchanged,
    so that droplets have no effect on the rest of the image.
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
        stage: letter of figure 2. It can be changed at any time, as the parameters are the same.
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
        """Show shape and stage in `print(model)`."""
        return f"{list(self.weight.shape)}, stage {self.stage}"


def _mean(x: Tensor) -> Tensor:
    """Return the mean of each feature map, [N, C, 1, 1]."""
    return x.mean(dim=(2, 3), keepdim=True)


def _stddev(x: Tensor) -> Tensor:
    """Return the standard deviation of each feature map, [N, C, 1, 1]."""
    return ((x - _mean(x)).square().mean(dim=(2, 3), keepdim=True) + EPS).sqrt()
