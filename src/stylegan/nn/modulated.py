"""The layers of StyleGAN2's synthesis network.

Source: Karras et al. 2020 (StyleGAN2), section 2.2 and figure 2d.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from stylegan.image_size import ImageSize
from stylegan.nn.equalized import EqualizedLinear
from stylegan.ops.bias_act import ACTIVATION_GAIN, clamp_for
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel
from stylegan.ops.modulated_conv import modulated_conv2d

ConvForm = Literal["scaled", "grouped"]


class SynthesisLayer(nn.Module):
    """Modulated and demodulated 3x3 convolution, noise, bias, leaky ReLU with gain sqrt(2).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: width of w.
        size: of the output.
        up: double the size, filtering with [1, 3, 3, 1].
        noise: add noise, with a learned strength.
        clamp: bound on the magnitude of the output, before `gain` of `forward`; None for none.
    """

    kernel: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        size: ImageSize,
        up: bool = False,
        noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.clamp = clamp
        self.up = up
        self.noise = noise
        self.form: ConvForm = "scaled"
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        # Demodulation cancels any scale, so the stored weight needs none.
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if noise:
            self.noise_strength = nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", torch.randn(size.height, size.width))
        if up:
            self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        *,
        noise: Tensor | None,
        gain: float = 1.0,
    ) -> Tensor:
        """Map [N, in_channels, h, w] and w [N, w_dim] to [N, out_channels, H, W], times `gain`.

        Noise is [H, W], or [N, 1, H, W], or None; None for a layer without noise.
        """
        return modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            up_kernel=self.kernel if self.up else None,
            noise=None if noise is None else noise * self.noise_strength,
            bias=self.bias,
            act="lrelu",
            gain=ACTIVATION_GAIN["lrelu"] * gain,
            clamp=clamp_for(x, gain, clamp=self.clamp),
            form=self.form,
        )

    def extra_repr(self) -> str:
        """Show shape and options in `print(model)`."""
        up = ", up" if self.up else ""
        return f"{list(self.weight.shape)}, {self.size}{up}"


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation, noise or activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the image.
        w_dim: width of w.
        clamp: bound on the magnitude of the output; None for none.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.scale = 1 / math.sqrt(in_channels)
        self.form: ConvForm = "scaled"
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] and w [N, w_dim] to [N, out_channels, H, W]."""
        styles = self.affine(w) * self.scale
        return modulated_conv2d(
            x,
            self.weight,
            styles,
            demodulate=False,
            bias=self.bias,
            clamp=clamp_for(x, clamp=self.clamp),
            form=self.form,
        )

    def extra_repr(self) -> str:
        """Show shape and options in `print(model)`."""
        return f"{list(self.weight.shape)}"
