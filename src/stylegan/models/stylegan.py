"""StyleGAN, configurations B to F, which differ in options. Configuration A is ProGAN.

Source: Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial
Networks"; configurations from table 1, the generator from figure 1b.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylegan.errors import ConfigError, check_not_negative, check_positive
from stylegan.image_size import Resolution
from stylegan.models.base import (
    AbstractDiscriminator,
    AbstractGenerator,
    AbstractSynthesis,
    Images,
    dtype_for,
)
from stylegan.models.growth import fade_weight
from stylegan.models.sizes import (
    Sized,
    block_resolutions,
    channels_at,
    check_minibatch_stddev,
    check_sizes,
    single_images,
)
from stylegan.nn.adain import AbstractStyleLayer, ConstantInput, DenseInput, StyledConv2d
from stylegan.nn.checkpointing import checkpointed
from stylegan.nn.equalized import HE_GAIN, EqualizedConv2d
from stylegan.nn.mapping import MappingNetwork, checked_input
from stylegan.nn.noise import NoiseMode, layer_noise
from stylegan.nn.progressive import DiscriminatorBlock, DiscriminatorHead, discriminate
from stylegan.ops.box import fade_in
from stylegan.ops.precision import exact_float32
from stylegan.rng import Source


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Sized):
    """Options of `Generator`. The defaults are configurations E and F.

    Attributes:
        resolution: side of square images, or "HEIGHTxWIDTH", such as 64 or "96x160".
        img_channels: channels of the images.
        z_dim: width of z.
        w_dim: width of w.
        c_dim: width of the labels, 0 for none.
        mapping_layers: depth of the mapping network; 0 uses the normalized z as w.
        mapping_width: width of its hidden layers; None for `w_dim`.
        styles: normalize by AdaIN with styles from w; otherwise by pixel norm.
        constant_input: start from a learned constant; otherwise from w.
        noise: add noise to every layer.
        channel_base: a block at the nominal resolution r has `channel_base / r` channels,
        channel_max: but at most this many.
    """

    resolution: Resolution
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
                f"w_dim must be {width} with mapping_layers 0, where w is z with the embedded "
                f"labels, got {self.w_dim}"
            )
        if self.constant_input and not self.styles:
            raise ConfigError(
                "constant_input without styles would leave the latents unused",
                fix="set constant_input to false, as in configuration B",
            )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(Sized):
    """Options of `Discriminator`. The defaults are configurations B to F.

    Attributes:
        resolution: side of square images, or "HEIGHTxWIDTH", such as 64 or "96x160".
        img_channels: channels of the images.
        c_dim: width of the labels, 0 for none.
        channel_base: a block at the nominal resolution r has `channel_base / r` channels,
        channel_max: but at most this many.
        mbstd_group_size: samples in a group of the minibatch standard deviation; None for the
            whole batch.
        mbstd_num_channels: channels that it adds; 0 leaves it out.
    """

    resolution: Resolution
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
    """One resolution of the generator: two layers, and an RGB layer.

    At the base the first layer is the input: the constant, or a dense layer of w.

    Args:
        in_channels: channels of the input; 0 at the base.
        config: the generator's options.
        resolution: nominal resolution of this block.
    """

    def __init__(self, in_channels: int, *, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        channels = channels_at(config, resolution)
        w_dim, styles, noise = config.w_dim, config.styles, config.noise
        size = config.size.at(resolution)
        self.is_first = in_channels == 0
        if self.is_first:
            kind = ConstantInput if config.constant_input else DenseInput
            self.input = kind(channels, w_dim=w_dim, size=size, styles=styles, noise=noise)
        else:
            self.conv0 = StyledConv2d(
                in_channels,
                channels,
                w_dim=w_dim,
                size=size,
                styles=styles,
                noise=noise,
                up=True,
            )
        self.conv1 = StyledConv2d(
            channels, channels, w_dim=w_dim, size=size, styles=styles, noise=noise
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
            x: [N, in_channels, H / 2, W / 2]; None at the base.
            ws: one style for each layer, [N, 2, w_dim].
            dtype: of the convolutions.
            noise: for each layer, from `noise_inputs`.

        Returns:
            Features [N, channels, H, W] in `dtype`.
        """
        for layer, w, layer_input in zip(self._layers(), ws.unbind(dim=1), noise, strict=True):
            x = layer(x, w, dtype=dtype, noise=layer_input)
        assert x is not None
        return x

    def noise_inputs(
        self, num: int, mode: NoiseMode, generator: Source | None
    ) -> list[Tensor | None]:
        """Return the noise of each layer for `num` images, in the order of the layers."""
        return [
            layer_noise(layer.noise_const, num, mode, generator) if layer.noise else None
            for layer in self._layers()
        ]

    def _layers(self) -> tuple[AbstractStyleLayer, AbstractStyleLayer]:
        return self.input if self.is_first else self.conv0, self.conv1


class SynthesisNetwork(AbstractSynthesis):
    """The synthesis network g: ws to images, at the current level of detail.

    Args:
        config: the generator's options.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        num_layers = 2 * len(block_resolutions(config.size))
        # Without styles w enters once, at the base.
        super().__init__(config.size, num_ws=num_layers if config.styles else 1)
        in_channels = 0
        for resolution in self.resolutions:
            block = SynthesisBlock(in_channels, config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
            in_channels = channels_at(config, resolution)

    @exact_float32
    def forward(
        self, ws: Tensor, noise_mode: NoiseMode = "const", generator: Source | None = None
    ) -> Tensor:
        """Make images [N, img_channels, H, W] from ws [N, num_ws, w_dim].

        H and W are the size at the level of detail; styles of larger blocks are not used.
        Arguments as in `Generator.forward`. Computes in `compute_dtype`, or in float64 if ws is.

        Raises:
            ValueError: if ws has another number of styles, or the noise mode is unknown.
        """
        self.check_inputs(ws, noise_mode)
        if self.num_ws == 1:
            ws = ws.expand(-1, 2 * len(self.resolutions), -1)
        ws = ws.contiguous()  # one layout, so that blocks are compiled once
        dtype = dtype_for(ws, self.compute_dtype)
        top, weight = self.current_resolution, fade_weight(self.lod)
        rgbs = []
        x: Tensor | None = None
        for index, resolution in enumerate(self.resolutions):
            if resolution > top:
                break
            block = self.get_submodule(f"b{resolution}")
            assert isinstance(block, SynthesisBlock)
            noise = block.noise_inputs(ws.shape[0], noise_mode, generator)
            run = checkpointed(block, self.activation_checkpointing)
            x = run(x, ws[:, 2 * index : 2 * index + 2], dtype=dtype, noise=noise)
            if resolution == top or (weight > 0 and resolution == top // 2):
                rgbs.append(block.torgb(x).to(ws.dtype))
        return fade_in(rgbs, weight)


class Generator(AbstractGenerator):
    """The generator of StyleGAN.

    Args:
        config: its options.
    """

    mapping: MappingNetwork
    synthesis: SynthesisNetwork
    is_growing = True

    def __init__(self, config: GeneratorConfig) -> None:
        synthesis = SynthesisNetwork(config)
        mapping = MappingNetwork(
            z_dim=config.z_dim,
            w_dim=config.w_dim,
            c_dim=config.c_dim,
            num_layers=config.mapping_layers,
            num_ws=synthesis.num_ws,
            hidden_dim=config.mapping_width,
            weight_gain=HE_GAIN,
            label_norm="joint",
        )
        super().__init__(config, mapping=mapping, synthesis=synthesis, w_dim=config.w_dim)

    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Move the mean of w towards that of ws."""
        self.mapping.update_w_avg(ws, beta)


class Discriminator(AbstractDiscriminator):
    """The discriminator of StyleGAN: ProGAN's, with a blur before each downsampling.

    With labels there is one output for each class, of which the label selects one.

    Args:
        config: its options.
    """

    b4: DiscriminatorHead
    is_growing = True

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        for resolution in block_resolutions(config.size)[:0:-1]:
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
            base=config.size.base,
            out_features=max(config.c_dim, 1),
            mbstd_group_size=config.mbstd_group_size,
            mbstd_num_channels=config.mbstd_num_channels,
        )

    @exact_float32
    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1], and labels [N, c_dim], to logits [N, 1].

        H and W are the size at the level of detail. The logit is the sum of the outputs weighted by
        the label, which selects one output if labels are one-hot.

        Raises:
            ValueError: if images or labels have another shape.
        """
        images = single_images(images, self.img_channels, self.current_size)
        out = discriminate(
            self,
            images,
            resolution=self.current_resolution,
            weight=fade_weight(self.lod),
            dtype=dtype_for(images, self.compute_dtype),
            activation_checkpointing=self.activation_checkpointing,
        )
        if self.c_dim == 0:
            return out
        return (out * checked_input(c, self.c_dim, "c")).sum(dim=1, keepdim=True)
