"""The discriminator of ProGAN, which StyleGAN keeps.

Source: Karras et al. 2018 (ProGAN), table 2; Karras et al. 2019 (StyleGAN), appendix C.
"""

import torch
from torch import Tensor, nn

from stylegan.image_size import ImageSize
from stylegan.nn.checkpointing import checkpointed
from stylegan.nn.equalized import HE_GAIN, EqualizedConv2d, EqualizedLinear, ResampleConv2d
from stylegan.ops.box import downsample_box
from stylegan.ops.normalize import minibatch_stddev


class DiscriminatorBlock(nn.Module):
    """One resolution: two convolutions, of which the second halves the size, and an RGB layer.

    Args:
        img_channels: channels of the images.
        channels: channels at this resolution.
        out_channels: channels at half the resolution.
        blur: filter before downsampling, as in StyleGAN.
        fused: average 2x2 pixels before the activation, as the joined convolution of the official
            code does; otherwise after it, as ProGAN's separate operations do.

    Raises:
        ValueError: if `blur` is set without `fused`, which no network has.
    """

    def __init__(
        self,
        img_channels: int,
        channels: int,
        out_channels: int,
        *,
        blur: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if blur and not fused:
            raise ValueError("DiscriminatorBlock takes blur only together with fused")
        self.fused = fused
        self.fromrgb = from_rgb(img_channels, channels)
        self.conv0 = EqualizedConv2d(channels, channels, 3, act="lrelu", weight_gain=HE_GAIN)
        self.conv1: nn.Module
        if fused:
            self.conv1 = ResampleConv2d(channels, out_channels, resample="down", blur=blur)
        else:
            self.conv1 = EqualizedConv2d(
                channels, out_channels, 3, act="lrelu", weight_gain=HE_GAIN
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, channels, H, W] to [N, out_channels, H / 2, W / 2]."""
        x = self.conv1(self.conv0(x))
        return x if self.fused else downsample_box(x)


class DiscriminatorHead(nn.Module):
    """The block at the base: minibatch standard deviation, a convolution, two linear layers.

    Args:
        img_channels: channels of the images.
        channels: channels of the block.
        base: size of the input.
        out_features: width of the output.
        mbstd_group_size: samples in a group of the minibatch standard deviation; None for all.
        mbstd_num_channels: channels that it adds; 0 leaves it out.
    """

    def __init__(
        self,
        img_channels: int,
        channels: int,
        *,
        base: ImageSize,
        out_features: int,
        mbstd_group_size: int | None,
        mbstd_num_channels: int,
    ) -> None:
        super().__init__()
        self.mbstd_group_size = mbstd_group_size
        self.mbstd_num_channels = mbstd_num_channels
        self.fromrgb = from_rgb(img_channels, channels)
        self.conv = EqualizedConv2d(
            channels + mbstd_num_channels, channels, 3, act="lrelu", weight_gain=HE_GAIN
        )
        self.fc = EqualizedLinear(
            channels * base.num_pixels, channels, act="lrelu", weight_gain=HE_GAIN
        )
        self.out = EqualizedLinear(channels, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, channels, h0, w0] to [N, out_features]."""
        if self.mbstd_num_channels > 0:
            x = minibatch_stddev(
                x, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels
            )
        x = self.fc(self.conv(x).flatten(1))
        out: Tensor = self.out(x)
        return out


def from_rgb(img_channels: int, channels: int) -> EqualizedConv2d:
    """Return the 1x1 convolution that turns images into features."""
    return EqualizedConv2d(img_channels, channels, 1, act="lrelu", weight_gain=HE_GAIN)


def discriminate(
    network: nn.Module,
    images: Tensor,
    *,
    resolution: int,
    weight: float = 0.0,
    dtype: torch.dtype = torch.float32,
    activation_checkpointing: bool = False,
) -> Tensor:
    """Run the blocks of a discriminator on images.

    Args:
        network: has a `DiscriminatorBlock` called `b8`, `b16` and so on for each nominal resolution
            up to that of the images, and a `DiscriminatorHead` called `b4`.
        images: [N, img_channels, H, W].
        resolution: nominal resolution of the images.
        weight: weight of the path that skips the first block, by the RGB layer of half the
            resolution; 0 uses the first block alone. Source: Karras et al. 2018, figure 2.
        dtype: of the blocks' convolutions; the head computes in the dtype of the images.
        activation_checkpointing: store only the inputs of blocks for the backward pass.

    Returns:
        [N, out_features].
    """
    first = resolution
    x = _features(network, first, images, dtype)
    while resolution > 4:
        block = network.get_submodule(f"b{resolution}")
        x = checkpointed(block, activation_checkpointing)(x)
        resolution //= 2
        if weight > 0 and resolution == first // 2:
            x = x.lerp(_features(network, resolution, downsample_box(images), dtype), weight)
    out: Tensor = network.get_submodule("b4")(x.to(images.dtype))
    return out


def _features(network: nn.Module, resolution: int, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the RGB layer of a nominal resolution."""
    images = images.to(dtype, memory_format=torch.channels_last)
    features: Tensor = network.get_submodule(f"b{resolution}.fromrgb")(images)
    return features
