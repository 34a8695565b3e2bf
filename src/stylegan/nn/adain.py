"""The layers of StyleGAN's synthesis network.

A layer has a linear part (the learned constant, a dense layer or a convolution), followed by
noise, bias, leaky ReLU, and a normalization with a style.

Source: Karras et al. 2019 (StyleGAN), section 2 and figure 1b.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.image_size import ImageSize
from stylegan.nn.equalized import HE_GAIN, EqualizedLinear
from stylegan.ops.bias_act import bias_act
from stylegan.ops.fir import BLUR_TAPS, filter2d, fir_kernel
from stylegan.ops.normalize import adain, pixel_norm
from stylegan.ops.resample_conv import conv2d_nearest_up


class AbstractStyleLayer(nn.Module, ABC):
    """The common parts of all layers.

    Args:
        channels: channels of the output.
        w_dim: width of w.
        size: of the output.
        styles: normalize by AdaIN with a style from w; otherwise by pixel norm.
        noise: add noise, scaled by a learned strength for each channel, initially zero.
    """

    noise_const: Tensor

    def __init__(
        self, channels: int, *, w_dim: int, size: ImageSize, styles: bool, noise: bool
    ) -> None:
        super().__init__()
        self.size = size
        self.styles = styles
        self.noise = noise
        self.bias = nn.Parameter(torch.zeros(channels))
        self.features = nn.Identity()  # lets hooks observe the features before normalization
        if styles:
            self.affine = EqualizedLinear(w_dim, 2 * channels)
        if noise:
            self.noise_strength = nn.Parameter(torch.zeros(channels))
            self.register_buffer("noise_const", torch.randn(size.height, size.width))

    @abstractmethod
    def linear(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        """Compute the linear part without its bias, [N, channels, H, W] in `dtype`."""

    def forward(
        self,
        x: Tensor | None,
        w: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        noise: Tensor | None,
    ) -> Tensor:
        """Compute the layer.

        Args:
            x: features of the previous layer, [N, in_channels, h, w]; None for an input layer.
            w: [N, w_dim].
            dtype: of the linear part and the result; statistics stay in float32 at least.
            noise: [H, W], or [N, 1, H, W], or None for no noise.

        Returns:
            [N, channels, H, W].
        """
        x = self.linear(x, w, dtype)
        offset = self.bias[:, None, None]
        if noise is not None:
            strength = self.noise_strength[:, None, None]
            if noise.ndim == 2:
                offset = offset + noise * strength
            else:
                x = torch.addcmul(x, noise.to(dtype), strength.to(dtype))
        x = self.features(bias_act(x + offset.to(dtype), act="lrelu", gain=1, inplace=True))
        if not self.styles:
            return pixel_norm(x)
        scale, shift = self.affine(w).chunk(2, dim=1)
        return adain(x, scale + 1, shift)

    def extra_repr(self) -> str:
        """Show size, normalization and noise in `print(model)`."""
        normalization = "AdaIN" if self.styles else "pixel norm"
        noise = ", noise" if self.noise else ""
        return f"{self.size}, {normalization}{noise}"


class ConstantInput(AbstractStyleLayer):
    """The learned constant of configurations D to F, as large as the base, initially ones."""

    def __init__(
        self, channels: int, *, w_dim: int, size: ImageSize, styles: bool, noise: bool
    ) -> None:
        super().__init__(channels, w_dim=w_dim, size=size, styles=styles, noise=noise)
        self.const = nn.Parameter(torch.ones(channels, size.height, size.width))

    def linear(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        """Repeat the constant for each sample."""
        const = self.const.to(dtype).expand(w.shape[0], -1, -1, -1)
        return const.contiguous(memory_format=torch.channels_last)


class DenseInput(AbstractStyleLayer):
    """The traditional input of configurations B and C: a dense layer of w."""

    def __init__(
        self, channels: int, *, w_dim: int, size: ImageSize, styles: bool, noise: bool
    ) -> None:
        super().__init__(channels, w_dim=w_dim, size=size, styles=styles, noise=noise)
        # A quarter of He's constant, as in ProGAN's official code.
        self.scale = HE_GAIN / 4 / math.sqrt(w_dim)
        self.weight = nn.Parameter(torch.randn(channels * size.num_pixels, w_dim))

    def linear(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        """Map w to features."""
        x = F.linear(w.to(dtype), (self.weight * self.scale).to(dtype))
        x = x.reshape(w.shape[0], -1, self.size.height, self.size.width)
        return x.contiguous(memory_format=torch.channels_last)


class StyledConv2d(AbstractStyleLayer):
    """3x3 convolution, optionally with nearest-neighbor upsampling before it and a blur after it.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        w_dim: width of w.
        size: of the output.
        styles: as `AbstractStyleLayer`.
        noise: as `AbstractStyleLayer`.
        up: double the size.
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        w_dim: int,
        size: ImageSize,
        styles: bool = True,
        noise: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__(channels, w_dim=w_dim, size=size, styles=styles, noise=noise)
        self.up = up
        self.scale = HE_GAIN / math.sqrt(in_channels * 9)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 3, 3))
        if up:
            self.register_buffer("kernel", fir_kernel(BLUR_TAPS), persistent=False)

    def linear(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        """Convolve."""
        assert x is not None
        weight = (self.weight * self.scale).to(dtype)
        if self.up:
            return filter2d(conv2d_nearest_up(x, weight), self.kernel)
        return F.conv2d(x, weight, padding=1)
