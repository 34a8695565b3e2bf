"""StyleGAN2: configurations B to F, the nine pairs of architectures of table 2, and MSG-style.

Five architectures share the layers and differ in where RGB leaves the generator and enters the
discriminator. Parameters have the names and storage scales of the official PyTorch weight files.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"; figure 7
shows all architectures but "growing", which is that of configurations B to D.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

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
    dtype_at,
)
from stylegan.nn.checkpointing import checkpointed
from stylegan.nn.equalized import EqualizedConv2d, EqualizedLinear
from stylegan.nn.mapping import LabelNorm, MappingNetwork
from stylegan.nn.modulated import ConvForm, SynthesisLayer, ToRGB
from stylegan.nn.noise import NoiseMode, layer_noise
from stylegan.ops.box import downsample_box, fade_in, image_pyramid
from stylegan.ops.fir import RESAMPLE_TAPS, downsample2d, fir_kernel, upsample2d
from stylegan.ops.normalize import minibatch_stddev
from stylegan.ops.precision import exact_float32
from stylegan.rng import Source

Architecture = Literal["orig", "skip", "resnet", "growing", "mipmap"]
RGB_EVERYWHERE = ("skip", "growing", "mipmap")
"""Architectures with an RGB layer at every resolution; the others have one at the largest."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Sized):
    """Options of `Generator`. The defaults are configuration F.

    Attributes:
        resolution: side of square images, or "HEIGHTxWIDTH", such as 64 or "96x160".
        img_channels: channels of the images.
        z_dim: width of z.
        w_dim: width of w.
        c_dim: width of the labels, 0 for none.
        mapping_layers: depth of the mapping network.
        mapping_width: width of its hidden layers; None for `w_dim`.
        label_norm: "separate" normalizes z and the embedded labels separately, as in ADA; "joint"
            normalizes both together, as in StyleGAN and StyleGAN2 in TensorFlow.
        architecture: "orig" makes RGB at the end; "skip" sums RGB over resolutions;
            "resnet" has residual blocks; "growing" makes RGB at the current resolution, with
            fades; "mipmap" makes an image pyramid.
        channel_base: a block at the nominal resolution r has `channel_base / r` channels,
        channel_max: but at most this many.
        noise: add noise to every layer.
        conv_clamp: bound on the magnitude of the output of each synthesis layer and RGB layer, in
            every precision; None for none. Official files of ADA and StyleGAN3 have 256.
    """

    resolution: Resolution
    img_channels: int = 3
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    mapping_width: int | None = None
    label_norm: LabelNorm = "separate"
    architecture: Architecture = "skip"
    channel_base: int = 32768
    channel_max: int = 512
    noise: bool = True
    conv_clamp: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        _check_common(self)
        for name in ("z_dim", "w_dim", "mapping_layers"):
            check_positive(name, getattr(self, name))
        if self.mapping_width is not None:
            check_positive("mapping_width", self.mapping_width)
        _check_choice("label_norm", self.label_norm, get_args(LabelNorm))


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(Sized):
    """Options of `Discriminator`. The defaults are configuration F.

    Attributes:
        resolution: side of square images, or "HEIGHTxWIDTH", such as 64 or "96x160".
        img_channels: channels of the images.
        c_dim: width of the labels, 0 for none.
        architecture: "orig" reads RGB at the start; "skip" reads it at each resolution;
            "resnet" has residual blocks; "growing" reads it at the current resolution, with
            fades; "mipmap" reads an image pyramid.
        channel_base: a block at the nominal resolution r has `channel_base / r` channels,
        channel_max: but at most this many.
        label_head: how labels enter: "projection" of the features on their embedding, as in
            ADA, or "select": one output for each class, as in StyleGAN2 in TensorFlow.
        mapping_layers: depth of the mapping network of the labels, for "projection".
        mbstd_group_size: samples in a group of the minibatch standard deviation; None for the
            whole batch.
        mbstd_num_channels: channels that it adds; 0 leaves it out.
        conv_clamp: bound on the magnitude of the output of each convolution, in every precision,
            but for residual branches and RGB at 4x4; None for none. Official files of ADA and
            StyleGAN3 have 256.
    """

    resolution: Resolution
    img_channels: int = 3
    c_dim: int = 0
    architecture: Architecture = "resnet"
    channel_base: int = 32768
    channel_max: int = 512
    label_head: Literal["projection", "select"] = "projection"
    mapping_layers: int = 8
    mbstd_group_size: int | None = 4
    mbstd_num_channels: int = 1
    conv_clamp: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        _check_common(self)
        check_not_negative("mapping_layers", self.mapping_layers)
        _check_choice("label_head", self.label_head, ("projection", "select"))
        check_minibatch_stddev(
            self, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels
        )


class SynthesisBlock(nn.Module):
    """One resolution of the generator: one or two layers, an RGB layer, a residual branch.

    Args:
        in_channels: channels of the input; 0 for the first block, whose input is a constant.
        config: the generator's options.
        resolution: nominal resolution of this block.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, *, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        channels, clamp = channels_at(config, resolution), config.conv_clamp
        size, noise = config.size.at(resolution), config.noise
        self.architecture = config.architecture
        self.is_first = in_channels == 0
        self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)
        if self.is_first:
            self.const = nn.Parameter(torch.randn(channels, size.height, size.width))
        else:
            self.conv0 = SynthesisLayer(
                in_channels,
                channels,
                w_dim=config.w_dim,
                size=size,
                up=True,
                noise=noise,
                clamp=clamp,
            )
        self.conv1 = SynthesisLayer(
            channels, channels, w_dim=config.w_dim, size=size, noise=noise, clamp=clamp
        )
        if self.architecture in RGB_EVERYWHERE or resolution == config.size.nominal:
            self.torgb = ToRGB(channels, config.img_channels, w_dim=config.w_dim, clamp=clamp)
        if self.architecture == "resnet" and not self.is_first:
            self.skip = EqualizedConv2d(in_channels, channels, 1, bias=False)
        self.num_convs = 1 if self.is_first else 2

    def forward(
        self,
        x: Tensor | None,
        ws: Tensor,
        *,
        dtype: torch.dtype,
        noise: Sequence[Tensor | None],
    ) -> Tensor:
        """Run the convolutions.

        Args:
            x: [N, in_channels, H / 2, W / 2]; None for the first block.
            ws: one style for each convolution, [N, num_convs, w_dim].
            dtype: of the convolutions.
            noise: for each convolution, from `noise_inputs`.

        Returns:
            Features [N, channels, H, W] in `dtype`.
        """
        if x is None:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, ws[:, 0], noise=noise[0])
        elif self.architecture == "resnet":
            residual = upsample2d(self.skip(x, gain=math.sqrt(0.5)), self.kernel)
            x = self.conv0(x, ws[:, 0], noise=noise[0])
            x = residual + self.conv1(x, ws[:, 1], noise=noise[1], gain=math.sqrt(0.5))
        else:
            x = self.conv0(x, ws[:, 0], noise=noise[0])
            x = self.conv1(x, ws[:, 1], noise=noise[1])
        return x

    def noise_inputs(
        self, num: int, mode: NoiseMode, generator: Source | None
    ) -> list[Tensor | None]:
        """Return the noise of each convolution for `num` images, in the order of the layers."""
        layers = [self.conv1] if self.is_first else [self.conv0, self.conv1]
        return [
            layer_noise(layer.noise_const, num, mode, generator) if layer.noise else None
            for layer in layers
        ]


class SynthesisNetwork(AbstractSynthesis):
    """The synthesis network g: ws to images.

    Args:
        config: the generator's options.
    """

    kernel: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        # One style for each convolution, the first block having one of them, and for the last RGB.
        super().__init__(config.size, num_ws=2 * len(block_resolutions(config.size)))
        self.architecture = config.architecture
        self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)
        in_channels = 0
        for resolution in self.resolutions:
            block = SynthesisBlock(in_channels, config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
            in_channels = channels_at(config, resolution)

    def forward(
        self, ws: Tensor, noise_mode: NoiseMode = "const", generator: Source | None = None
    ) -> Tensor:
        """Make images [N, img_channels, H, W] from ws [N, num_ws, w_dim].

        Arguments as in `Generator.forward`. Computes in `compute_dtype`, or in float64 if ws is.

        Raises:
            ValueError: if ws has another number of styles, or the noise mode is unknown.
        """
        return self.images(ws, noise_mode, generator)[0]

    @exact_float32
    def images(
        self, ws: Tensor, noise_mode: NoiseMode = "const", generator: Source | None = None
    ) -> list[Tensor]:
        """Make the image pyramid of "mipmap", largest first; one image in other architectures.

        Arguments and errors as in `forward`.
        """
        self.check_inputs(ws, noise_mode)
        dtype = dtype_for(ws, self.compute_dtype)
        ws = ws.contiguous()  # one layout, so that blocks are compiled once
        top = self.current_resolution
        with_rgb = self._resolutions_with_rgb(top)
        x: Tensor | None = None
        rgbs: list[Tensor] = []
        start = 0
        for resolution in self.resolutions:
            if resolution > top:
                break
            block = self.get_submodule(f"b{resolution}")
            assert isinstance(block, SynthesisBlock)
            end = start + block.num_convs
            block_dtype = dtype_at(resolution, full=self.resolutions[-1], dtype=dtype)
            x = checkpointed(block, self.activation_checkpointing)(
                ws=ws[:, start:end],
                x=None if x is None else x.to(block_dtype),
                dtype=block_dtype,
                noise=block.noise_inputs(ws.shape[0], noise_mode, generator),
            )
            if resolution in with_rgb:
                # RGB shares its style with the first layer of the next block.
                rgbs.append(block.torgb(x, ws[:, end]).to(ws.dtype))
            start = end
        return self._combine(rgbs)

    def _resolutions_with_rgb(self, top: int) -> list[int]:
        if self.architecture in ("skip", "mipmap"):
            return self.resolutions
        is_fading = self.architecture == "growing" and fade_weight(self.lod) > 0
        return [top // 2, top] if is_fading else [top]

    def _combine(self, rgbs: list[Tensor]) -> list[Tensor]:
        """Make the output of the architecture from the RGB of each resolution, smallest first."""
        if self.architecture == "mipmap":
            return rgbs[::-1]
        if self.architecture == "growing":
            return [fade_in(rgbs, fade_weight(self.lod))]
        image = rgbs[0]
        for rgb in rgbs[1:]:
            image = upsample2d(image, self.kernel) + rgb
        return [image]


class Generator(AbstractGenerator):
    """The StyleGAN2 generator.

    Args:
        config: its options.
    """

    mapping: MappingNetwork
    synthesis: SynthesisNetwork

    def __init__(self, config: GeneratorConfig) -> None:
        synthesis = SynthesisNetwork(config)
        mapping = MappingNetwork(
            z_dim=config.z_dim,
            w_dim=config.w_dim,
            c_dim=config.c_dim,
            num_layers=config.mapping_layers,
            num_ws=synthesis.num_ws,
            hidden_dim=config.mapping_width,
            label_norm=config.label_norm,
        )
        super().__init__(config, mapping=mapping, synthesis=synthesis, w_dim=config.w_dim)
        self.is_growing = config.architecture == "growing"

    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Move the mean of w towards that of ws."""
        self.mapping.update_w_avg(ws, beta)

    def discriminator_input(
        self,
        ws: Tensor,
        noise_mode: NoiseMode = "const",
        generator: Source | None = None,
    ) -> Images:
        """Synthesize the images, or for "mipmap" those of all resolutions."""
        images = self.synthesis.images(ws, noise_mode, generator)
        return images if self.config.architecture == "mipmap" else images[0]


class DiscriminatorBlock(nn.Module):
    """One resolution of the discriminator: two layers, the second halves the size.

    Args:
        config: the discriminator's options.
        resolution: nominal resolution of the input.
    """

    def __init__(self, *, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        channels, clamp = channels_at(config, resolution), config.conv_clamp
        out_channels = channels_at(config, resolution // 2)
        self.architecture = config.architecture
        is_top = resolution == config.size.nominal
        if self.architecture in RGB_EVERYWHERE or is_top:
            self.fromrgb = EqualizedConv2d(
                config.img_channels, channels, 1, act="lrelu", clamp=clamp
            )
        in_channels = 2 * channels if self.architecture == "mipmap" and not is_top else channels
        self.conv0 = EqualizedConv2d(in_channels, channels, 3, act="lrelu", clamp=clamp)
        self.conv1 = EqualizedConv2d(channels, out_channels, 3, act="lrelu", down=True, clamp=clamp)
        if self.architecture == "resnet":
            self.skip = EqualizedConv2d(channels, out_channels, 1, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, channels, R, R], RGB joined, to half the size."""
        if self.architecture == "resnet":
            residual = self.skip(x, gain=math.sqrt(0.5))
            x = residual + self.conv1(self.conv0(x), gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x))
        return x


class DiscriminatorEpilogue(nn.Module):
    """The last block: minibatch standard deviation, a convolution, two linear layers.

    Args:
        config: the discriminator's options.
        out_features: 1, the width of the labels' embedding, or the number of classes.
    """

    def __init__(self, *, config: DiscriminatorConfig, out_features: int) -> None:
        super().__init__()
        channels = channels_at(config, 4)
        self.mbstd_group_size = config.mbstd_group_size
        self.mbstd_num_channels = config.mbstd_num_channels
        if config.architecture in RGB_EVERYWHERE:
            # without a clamp, as in the official files
            self.fromrgb = EqualizedConv2d(config.img_channels, channels, 1, act="lrelu")
        in_channels = 2 * channels if config.architecture == "mipmap" else channels
        in_channels += config.mbstd_num_channels
        self.conv = EqualizedConv2d(in_channels, channels, 3, act="lrelu", clamp=config.conv_clamp)
        self.fc = EqualizedLinear(channels * config.size.base.num_pixels, channels, act="lrelu")
        self.out = EqualizedLinear(channels, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, channels, h0, w0], RGB joined, to [N, out_features]."""
        if self.mbstd_num_channels > 0:
            x = minibatch_stddev(
                x, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels
            )
        x = self.conv(x)
        x = self.fc(x.flatten(1))
        out: Tensor = self.out(x)
        return out


class Discriminator(AbstractDiscriminator):
    """The StyleGAN2 discriminator.

    Args:
        config: its options.
    """

    kernel: Tensor

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        self.architecture = config.architecture
        self.is_growing = config.architecture == "growing"
        self.resolutions = block_resolutions(config.size)[:0:-1]  # largest first, without 4
        self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)
        for resolution in self.resolutions:
            block = DiscriminatorBlock(config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
        has_projection = config.c_dim > 0 and config.label_head == "projection"
        self.label_dim = channels_at(config, 4) if has_projection else 0
        if has_projection:
            self.mapping = MappingNetwork(
                z_dim=0,
                w_dim=self.label_dim,
                c_dim=config.c_dim,
                num_layers=config.mapping_layers,
            )
        out_features = self.label_dim if has_projection else max(config.c_dim, 1)
        self.b4 = DiscriminatorEpilogue(config=config, out_features=out_features)

    @exact_float32
    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1], and labels [N, c_dim], to logits [N, 1].

        Raises:
            ValueError: if images or labels have another shape.
        """
        levels = self._levels(images)
        top = max(levels)
        dtype = dtype_for(levels[top], self.compute_dtype)
        x: Tensor | None = None
        for resolution in self.resolutions:
            if resolution > top:
                continue
            block_dtype = dtype_at(resolution, full=self.img_resolution, dtype=dtype)
            x = self._add_rgb(x, levels.get(resolution), resolution, block_dtype)
            block = self.get_submodule(f"b{resolution}")
            x = checkpointed(block, self.activation_checkpointing)(x)
            if self.is_growing and resolution == top and fade_weight(self.lod) > 0:
                small = downsample_box(levels[top])
                small = self._add_rgb(None, small, resolution // 2, block_dtype)
                x = x.lerp(small, fade_weight(self.lod))
        block_dtype = dtype_at(4, full=self.img_resolution, dtype=dtype)
        x = self._add_rgb(x, levels.get(4), 4, block_dtype)
        out: Tensor = self.b4(x.to(levels[top].dtype))  # the last block in full precision
        if self.c_dim == 0:
            return out
        if self.label_dim > 0:
            embedding: Tensor = self.mapping(None, c)
            return (out * embedding).sum(dim=1, keepdim=True) / math.sqrt(self.label_dim)
        if c is None or c.shape != out.shape:
            found = "None" if c is None else list(c.shape)
            raise ValueError(f"c must be {list(out.shape)}, got {found}")
        return (out * c).sum(dim=1, keepdim=True)

    def _add_rgb(
        self, x: Tensor | None, image: Tensor | None, resolution: int, dtype: torch.dtype
    ) -> Tensor:
        """Combine the features that arrive at a resolution with those of its image, if any."""
        x = None if x is None else x.to(dtype)
        if image is None:
            assert x is not None
            return x
        image = image.to(dtype, memory_format=torch.channels_last)
        rgb: Tensor = self.get_submodule(f"b{resolution}").fromrgb(image)  # type: ignore[operator]
        if x is None:
            return rgb
        return torch.cat([x, rgb], dim=1) if self.architecture == "mipmap" else x + rgb

    def _levels(self, images: Images) -> dict[int, Tensor]:
        """Return the image of each nominal resolution that has an RGB layer."""
        levels = [images] if isinstance(images, Tensor) else list(images)
        resolution, size = self.current_resolution, self.current_size
        for level, image in enumerate(levels):
            shape = [self.img_channels, size.height >> level, size.width >> level]
            if list(image.shape[1:]) != shape:
                raise ValueError(f"images must be {['N', *shape]}, got {list(image.shape)}")
        if self.architecture == "mipmap":
            num_levels = len(self.resolutions) + 1
            if len(levels) == 1:
                levels = image_pyramid(levels[0], num_levels=num_levels)
            if len(levels) != num_levels:
                raise ValueError(f"images must be of 1 or {num_levels} sizes, got {len(levels)}")
        elif len(levels) > 1:
            raise ValueError(f"images must be of one size, got {len(levels)}")
        elif self.architecture == "skip":
            for _ in self.resolutions:
                levels.append(downsample2d(levels[-1], self.kernel))
        return {resolution >> level: image for level, image in enumerate(levels)}


def set_conv_form(generator: Generator, form: ConvForm) -> None:
    """Choose how modulated convolutions are computed: "scaled" (default) or "grouped"."""
    for module in generator.modules():
        if isinstance(module, SynthesisLayer | ToRGB):
            module.form = form


def _check_common(config: GeneratorConfig | DiscriminatorConfig) -> None:
    check_sizes(config)
    _check_choice("architecture", config.architecture, get_args(Architecture))
    if config.conv_clamp is not None:
        check_positive("conv_clamp", config.conv_clamp)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
