"""StyleGAN: configurations B to F. The letters are options, not classes.

Source: Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial
Networks"; table 1 lists the configurations, figure 1b shows the generator. Configuration A is
ProGAN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylegan.errors import ConfigError, check_not_negative, check_positive
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Images
from stylegan.models.growth import fade_weight, resolution_at
from stylegan.models.sizes import (
    channels_at,
    check_minibatch_stddev,
    check_sizes,
    resolutions_up_to,
    single_images,
)
from stylegan.nn.adain import AbstractStyleLayer, ConstantInput, DenseInput, StyledConv2d
from stylegan.nn.equalized import HE_GAIN, EqualizedConv2d
from stylegan.nn.mapping import MappingNetwork, checked_input
from stylegan.nn.noise import NoiseMode, layer_noise
from stylegan.nn.progressive import DiscriminatorBlock, DiscriminatorHead, descend
from stylegan.nn.recompute import recomputed
from stylegan.ops.box import upsample_nearest
from stylegan.ops.precision import exact_float32
from stylegan.rng import Source


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Options of `Generator`. The defaults are configurations E and F.

    Attributes:
        resolution: side of the images, a power of two from 8.
        img_channels: channels of the images.
        z_dim: width of z.
        w_dim: width of w.
        c_dim: width of the labels, 0 for none.
        mapping_layers: depth of the mapping network; 0 takes the normalized z as w.
        mapping_width: of its layers but the last; None for `w_dim`.
        styles: normalize by AdaIN, with styles made of w; otherwise by pixel norm.
        constant_input: start from a learned constant; otherwise from w.
        noise: add noise to every layer.
        channel_base: a block at resolution r has `channel_base / r` channels ...
        channel_max: ... but no more than this.
    """

    resolution: int
    img_channels: int = 3
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    mapping_width: int | None = None
    styles: bool = True
    constant_input: bool = True
    noise: bool = True
    channel_base: int = 16384
    channel_max: int = 512

    def __post_init__(self) -> None:
        """Check every value."""
        check_sizes(self)
        check_positive("z_dim", self.z_dim)
        check_positive("w_dim", self.w_dim)
        check_not_negative("mapping_layers", self.mapping_layers)
        if self.mapping_width is not None:
            check_positive("mapping_width", self.mapping_width)
        width = self.z_dim * (2 if self.c_dim else 1)
        if self.mapping_layers == 0 and self.w_dim != width:
            raise ConfigError(
                f"w_dim {self.w_dim} with mapping_layers 0",
                expected=f"{width}, as w is then z, with the labels' embedding if there are any",
                fix="change w_dim or z_dim",
            )
        if self.constant_input and not self.styles:
            raise ConfigError(
                "constant_input without styles",
                expected="one way at least from the latents to the image",
                fix="set constant_input to false, as configuration B does",
            )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Options of `Discriminator`. The defaults are configurations B to F.

    Attributes:
        resolution: side of the images, a power of two from 8.
        img_channels: channels of the images.
        c_dim: width of the labels, 0 for none.
        channel_base: a block at resolution r has `channel_base / r` channels ...
        channel_max: ... but no more than this.
        mbstd_group_size: samples in a group of the minibatch standard deviation; None for the
            whole batch.
        mbstd_num_channels: channels that it adds; 0 leaves it out.
    """

    resolution: int
    img_channels: int = 3
    c_dim: int = 0
    channel_base: int = 16384
    channel_max: int = 512
    mbstd_group_size: int | None = 4
    mbstd_num_channels: int = 1

    def __post_init__(self) -> None:
        """Check every value."""
        check_sizes(self)
        check_minibatch_stddev(
            self, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels
        )


class SynthesisBlock(nn.Module):
    """One resolution of the generator: two layers, and the way out to RGB.

    At 4x4 the first of the layers is the input: the constant, or a dense layer of w.

    Args:
        in_channels: channels of the input; 0 at 4x4.
        config: the generator's options.
        resolution: side of this block, in pixels.
    """

    def __init__(self, in_channels: int, *, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        channels = channels_at(config, resolution)
        w_dim, styles, noise = config.w_dim, config.styles, config.noise
        self.is_first = in_channels == 0
        if self.is_first:
            kind = ConstantInput if config.constant_input else DenseInput
            self.input = kind(
                channels, w_dim=w_dim, resolution=resolution, styles=styles, noise=noise
            )
        else:
            self.conv0 = StyledConv2d(
                in_channels,
                channels,
                w_dim=w_dim,
                resolution=resolution,
                styles=styles,
                noise=noise,
                up=True,
            )
        self.conv1 = StyledConv2d(
            channels, channels, w_dim=w_dim, resolution=resolution, styles=styles, noise=noise
        )
        self.torgb = EqualizedConv2d(channels, config.img_channels, 1)

    def forward(
        self,
        x: Tensor | None,
        ws: Tensor,
        *,
        dtype: torch.dtype,
        noise: Sequence[Tensor | None],
    ) -> Tensor:
        """Run the two layers.

        Args:
            x: [N, in_channels, R / 2, R / 2]; None at 4x4.
            ws: a style for each layer, [N, 2, w_dim].
            dtype: of the convolutions.
            noise: of each layer, from `noise_inputs`.

        Returns:
            Features [N, channels, R, R] in `dtype`.
        """
        for layer, w, own in zip(self._layers(), ws.unbind(dim=1), noise, strict=True):
            x = layer(x, w, dtype=dtype, noise=own)
        assert x is not None
        return x

    def noise_inputs(
        self, num: int, mode: NoiseMode, generator: Source | None
    ) -> list[Tensor | None]:
        """Return the noise of each layer for so many images, in their order."""
        return [
            layer_noise(layer.noise_const, num, mode, generator) if layer.noise else None
            for layer in self._layers()
        ]

    def _layers(self) -> tuple[AbstractStyleLayer, AbstractStyleLayer]:
        return self.input if self.is_first else self.conv0, self.conv1


class SynthesisNetwork(nn.Module):
    """The synthesis network g: ws to images, at the current level of detail.

    Args:
        config: the generator's options.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.recompute = False
        self.lod = 0.0
        self.resolutions = resolutions_up_to(config.resolution)
        in_channels = 0
        for resolution in self.resolutions:
            block = SynthesisBlock(in_channels, config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
            in_channels = channels_at(config, resolution)
        # Without styles w enters once, at 4x4.
        self.num_ws = 2 * len(self.resolutions) if config.styles else 1

    @exact_float32
    def forward(
        self,
        ws: Tensor,
        noise_mode: NoiseMode = "const",
        generator: Source | None = None,
    ) -> Tensor:
        """Make images [N, img_channels, R, R] from ws [N, num_ws, w_dim].

        R is the resolution of the level of detail; styles of larger ones are not used. Arguments
        as in `Generator.forward`. Computes in `compute_dtype`, or in float64 if ws is.

        Raises:
            ValueError: if ws has another number of styles, or the noise mode is unknown.
        """
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must be [N, {self.num_ws}, w_dim], got {list(ws.shape)}")
        if noise_mode not in ("const", "random", "none"):
            raise ValueError(f"noise_mode must be const, random or none, got {noise_mode!r}")
        if self.num_ws == 1:
            ws = ws.expand(-1, 2 * len(self.resolutions), -1)
        ws = ws.contiguous()  # one layout, for which blocks are compiled once
        dtype = torch.float64 if ws.dtype == torch.float64 else self.compute_dtype
        top, weight = resolution_at(self.resolutions[-1], self.lod), fade_weight(self.lod)
        image: Tensor | None = None
        x: Tensor | None = None
        for index, resolution in enumerate(self.resolutions):
            if resolution > top:
                break
            block = self.get_submodule(f"b{resolution}")
            assert isinstance(block, SynthesisBlock)
            run = recomputed(block) if self.recompute else block
            noise = block.noise_inputs(len(ws), noise_mode, generator)
            x = run(x, ws[:, 2 * index : 2 * index + 2], dtype=dtype, noise=noise)
            if resolution == top or (weight > 0 and resolution == top // 2):
                rgb = block.torgb(x).to(ws.dtype)
                image = rgb if image is None else rgb.lerp(upsample_nearest(image), weight)
        assert image is not None
        return image


class Generator(AbstractGenerator):
    """The generator of StyleGAN.

    Args:
        config: its options.
    """

    mapping: MappingNetwork
    synthesis: SynthesisNetwork
    is_growing = True

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.w_dim = config.w_dim
        self.c_dim = config.c_dim
        self.img_resolution = config.resolution
        self.img_channels = config.img_channels
        self.synthesis = SynthesisNetwork(config)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(
            z_dim=config.z_dim,
            w_dim=config.w_dim,
            c_dim=config.c_dim,
            num_layers=config.mapping_layers,
            num_ws=self.num_ws,
            hidden_dim=config.mapping_width,
            weight_gain=HE_GAIN,
            label_norm="joint",
        )

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the convolutions."""
        return self.synthesis.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.synthesis.compute_dtype = dtype

    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Move the mean of w towards that of ws."""
        self.mapping.update_w_avg(ws, beta)


class Discriminator(AbstractDiscriminator):
    """The discriminator of StyleGAN: ProGAN's, with a blur before each size is halved.

    Labels, if any, choose among as many outputs.

    Args:
        config: its options.
    """

    b4: DiscriminatorHead
    is_growing = True

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.c_dim = config.c_dim
        self.img_resolution = config.resolution
        self.img_channels = config.img_channels
        for resolution in resolutions_up_to(config.resolution)[:0:-1]:
            block = DiscriminatorBlock(
                config.img_channels,
                channels_at(config, resolution),
                channels_at(config, resolution // 2),
                blur=True,
            )
            self.add_module(f"b{resolution}", block)
        self.b4 = DiscriminatorHead(
            config.img_channels,
            channels_at(config, 4),
            out_features=max(config.c_dim, 1),
            mbstd_group_size=config.mbstd_group_size,
            mbstd_num_channels=config.mbstd_num_channels,
        )

    @exact_float32
    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, R, R] in [-1, 1], and labels [N, c_dim], to logits [N, 1].

        R is the resolution of the level of detail. The logits are the outputs weighted by the
        labels, which selects one where labels are one-hot.

        Raises:
            ValueError: if images or labels have another shape.
        """
        images = single_images(
            images, self.img_channels, resolution_at(self.img_resolution, self.lod)
        )
        dtype = torch.float64 if images.dtype == torch.float64 else self.compute_dtype
        out = descend(
            self,
            images,
            weight=fade_weight(self.lod),
            dtype=dtype,
            recompute=self.recompute,
        )
        if self.c_dim == 0:
            return out
        return (out * checked_input(c, self.c_dim, "c")).sum(dim=1, keepdim=True)
