"""Layers with an equalized learning rate.

The stored weight has unit variance (divided by the learning-rate multiplier), and `forward`
multiplies it by `lr_multiplier / sqrt(fan_in)`. Adam normalizes gradient magnitude, so layers
of any width then move at the same relative speed.

He's gain of sqrt(2) belongs to the activation in StyleGAN2, where it scales the bias as well. In
ProGAN and StyleGAN it belongs to the weight alone, as with the argument `weight_gain` here.

Source: Karras et al. 2018 (ProGAN), section 4.1.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.ops.backend import is_fused
from stylegan.ops.bias_act import ACTIVATION_GAIN, Activation, bias_act, clamp_for
from stylegan.ops.fir import BLUR_TAPS, RESAMPLE_TAPS, filter2d, fir_kernel
from stylegan.ops.resample_conv import conv2d_box_down, conv2d_down, conv2d_nearest_up

HE_GAIN = math.sqrt(2.0)
"""Keeps the variance through a leaky ReLU (He et al. 2015): the weight's gain in ProGAN."""


class EqualizedLinear(nn.Module):
    """Linear layer with an equalized learning rate, and an optional leaky ReLU.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        act: "linear" or "lrelu".
        bias: add one learned offset per output.
        bias_init: initial value of the offsets.
        lr_multiplier: factor on the effective learning rate of weight and bias.
        weight_gain: gain of the weight alone; None for the activation's gain, on the bias too.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        act: Activation = "linear",
        bias: bool = True,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        weight_gain: float | None = None,
    ) -> None:
        super().__init__()
        self.act: Activation = act
        # Leaky ReLU is positively homogeneous: its gain may be applied before it.
        weight_gain, bias_gain = _gains(act, weight_gain)
        self.scale = weight_gain * lr_multiplier / math.sqrt(in_features)
        self.bias_scale = bias_gain * lr_multiplier
        # in place for the meta device, as in `fir_kernel`
        self.weight = nn.Parameter(torch.randn(out_features, in_features).div_(lr_multiplier))
        self.bias = nn.Parameter(torch.full([out_features], bias_init)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_features] to [N, out_features]."""
        weight = (self.weight * self.scale).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.bias_scale).to(x.dtype)
        x = F.linear(x, weight, bias)
        return bias_act(x, act=self.act, gain=1, inplace=True)

    def extra_repr(self) -> str:
        """Show shape and options in `print(model)`."""
        return f"{list(self.weight.shape)}, {self.act}, scale={self.scale:.4g}"


class EqualizedConv2d(nn.Module):
    """Convolution with an equalized learning rate, optional downsampling and leaky ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd, in pixels.
        act: "linear" or "lrelu".
        bias: add one learned offset per output channel, initially zero.
        down: halve the size, filtering with [1, 3, 3, 1] first.
        weight_gain: gain of the weight alone; None for the activation's gain, on the bias too.
        clamp: bound on the magnitude of the output, before `gain` of `forward`; None for none.

    Raises:
        ValueError: if `kernel_size` is even, as it would move the image by half a pixel.
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        act: Activation = "linear",
        bias: bool = True,
        down: bool = False,
        weight_gain: float | None = None,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.act: Activation = act
        self.down = down
        self.clamp = clamp
        weight_gain, self.bias_scale = _gains(act, weight_gain)
        self.scale = weight_gain / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if down:
            self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H', W'], times `gain`."""
        weight = (self.weight * (self.scale * gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * (self.bias_scale * gain)).to(x.dtype)
        later = bias if is_fused(x) else None  # the activation's kernel adds it
        bias = None if later is not None else bias
        if self.down:
            x = conv2d_down(x, weight, self.kernel, bias=bias)
        else:
            x = F.conv2d(x, weight, bias, padding=self.padding)
        clamp = clamp_for(x, gain, clamp=self.clamp)
        return bias_act(x, later, act=self.act, gain=1, clamp=clamp, inplace=True)

    def extra_repr(self) -> str:
        """Show shape and options in `print(model)`."""
        down = ", down" if self.down else ""
        return f"{list(self.weight.shape)}, {self.act}, scale={self.scale:.4g}{down}"


class ResampleConv2d(nn.Module):
    """3x3 convolution of ProGAN and StyleGAN that doubles or halves the size, and a leaky ReLU.

    Pixels are repeated before the convolution, or averaged after it. He's gain of sqrt(2) belongs
    to the weight.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        resample: "up" or "down".
        blur: filter with [1, 2, 1] before downsampling, as in StyleGAN from configuration B on.

    Raises:
        ValueError: if `blur` is set with "up", where noise comes between blur and bias.
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resample: Literal["up", "down"],
        blur: bool = False,
    ) -> None:
        super().__init__()
        if blur and resample == "up":
            raise ValueError("ResampleConv2d takes blur only with resample down")
        self.resample = resample
        self.blur = blur
        self.scale = HE_GAIN / math.sqrt(in_channels * 9)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if blur:
            self.register_buffer("kernel", fir_kernel(BLUR_TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, 2H, 2W] or [.., H / 2, W / 2]."""
        weight, bias = (self.weight * self.scale).to(x.dtype), self.bias.to(x.dtype)
        if self.resample == "up":
            return bias_act(
                conv2d_nearest_up(x, weight, bias=bias), act="lrelu", gain=1, inplace=True
            )
        x = filter2d(x, self.kernel) if self.blur else x
        return bias_act(conv2d_box_down(x, weight, bias=bias), act="lrelu", gain=1, inplace=True)

    def extra_repr(self) -> str:
        """Show shape and options in `print(model)`."""
        blur = ", blur" if self.blur else ""
        return f"{list(self.weight.shape)}, {self.resample}, scale={self.scale:.4g}{blur}"


def _gains(act: Activation, weight_gain: float | None) -> tuple[float, float]:
    """Return the gains of weight and bias, so that the activation needs none."""
    if weight_gain is None:
        return ACTIVATION_GAIN[act], ACTIVATION_GAIN[act]
    return weight_gain, 1.0
