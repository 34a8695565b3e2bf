"""Layers with an equalized learning rate.

The stored weight has unit variance (divided by the learning-rate multiplier), and `forward`
multiplies it by `lr_multiplier / sqrt(fan_in)`. Adam normalizes gradient magnitude, so layers
of any width then move at the same relative speed. As in StyleGAN2, He's sqrt(2) stands in the
activation.

Source: Karras et al. 2018 (ProGAN), section 4.1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.ops.bias_act import ACTIVATION_GAIN, Activation, bias_act
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel
from stylegan.ops.resample_conv import conv2d_down


class EqualizedLinear(nn.Module):
    """Linear layer with an equalized learning rate, and an optional leaky ReLU.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        act: "linear" or "lrelu"; the gain is the activation's own.
        bias: add one learned offset per output.
        bias_init: initial value of the offsets.
        lr_multiplier: factor on the effective learning rate of weight and bias.
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
    ) -> None:
        super().__init__()
        self.act: Activation = act
        self.lr_multiplier = lr_multiplier
        self.scale = lr_multiplier / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], bias_init)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_features] to [N, out_features]."""
        # Leaky ReLU is positively homogeneous: its gain may be applied before it, to the weight.
        gain = ACTIVATION_GAIN[self.act]
        weight = (self.weight * (self.scale * gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * (self.lr_multiplier * gain)).to(x.dtype)
        x = F.linear(x, weight, bias)
        return bias_act(x, act=self.act, gain=1, inplace=True)

    def extra_repr(self) -> str:
        """Show in `print(model)` what the weight's shape does not tell."""
        return f"{list(self.weight.shape)}, {self.act}, scale={self.scale:.4g}"


class EqualizedConv2d(nn.Module):
    """Convolution with an equalized learning rate, optional downsampling and leaky ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd, in pixels.
        act: "linear" or "lrelu"; the gain is the activation's own.
        bias: add one learned offset per output channel, zero at first.
        down: halve the size, filtering with [1, 3, 3, 1] first.

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
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.act: Activation = act
        self.down = down
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if down:
            self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H', W'], times `gain`."""
        gain = gain * ACTIVATION_GAIN[self.act]  # before the activation: see EqualizedLinear
        weight = (self.weight * (self.scale * gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        if self.down:
            x = conv2d_down(x, weight, self.kernel, bias=bias)
        else:
            x = F.conv2d(x, weight, bias, padding=self.padding)
        return bias_act(x, act=self.act, gain=1, inplace=True)

    def extra_repr(self) -> str:
        """Show in `print(model)` what the weight's shape does not tell."""
        down = ", down" if self.down else ""
        return f"{list(self.weight.shape)}, {self.act}, scale={self.scale:.4g}{down}"
