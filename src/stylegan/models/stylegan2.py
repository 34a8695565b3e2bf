"""StyleGAN2: configurations E and F, in the nine pairs of the paper's Table 2.

Parameters carry the names of the official PyTorch weight files, with the same storage scales.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"; figure 7
shows the three architectures.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stylegan.errors import ConfigError, check_positive
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator
from stylegan.nn.equalized import EqualizedConv2d, EqualizedLinear
from stylegan.nn.mapping import MappingNetwork
from stylegan.nn.modulated import ConvForm, NoiseMode, SynthesisLayer, ToRGB
from stylegan.ops.fir import RESAMPLE_TAPS, downsample2d, fir_kernel, upsample2d
from stylegan.ops.normalize import minibatch_stddev

Architecture = Literal["orig", "skip", "resnet"]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Options of `Generator`. The defaults are configuration F.

    Attributes:
        resolution: side of the images, a power of two from 8.
        img_channels: channels of the images.
        z_dim: width of z.
        w_dim: width of w.
        c_dim: width of the labels, 0 for none.
        mapping_layers: depth of the mapping network.
        architecture: "orig" makes RGB at the end; "skip" sums RGB over resolutions;
            "resnet" has residual blocks.
        channel_base: a block at resolution r has `channel_base / r` channels ...
        channel_max: ... but no more than this.
    """

    resolution: int
    img_channels: int = 3
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    architecture: Architecture = "skip"
    channel_base: int = 32768
    channel_max: int = 512

    def __post_init__(self) -> None:
        """Check every value."""
        _check_common(self)
        for name in ("z_dim", "w_dim", "mapping_layers"):
            check_positive(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Options of `Discriminator`. The defaults are configuration F.

    Attributes:
        resolution: side of the images, a power of two from 8.
        img_channels: channels of the images.
        c_dim: width of the labels, 0 for none.
        architecture: "orig" reads RGB at the start; "skip" reads it at each resolution;
            "resnet" has residual blocks.
        channel_base: a block at resolution r has `channel_base / r` channels ...
        channel_max: ... but no more than this.
        mapping_layers: depth of the mapping network of the labels.
        mbstd_group_size: samples in a group of the minibatch standard deviation.
        mbstd_num_channels: channels that it adds; 0 leaves it out.
    """

    resolution: int
    img_channels: int = 3
    c_dim: int = 0
    architecture: Architecture = "resnet"
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 8
    mbstd_group_size: int = 4
    mbstd_num_channels: int = 1

    def __post_init__(self) -> None:
        """Check every value."""
        _check_common(self)
        check_positive("mbstd_group_size", self.mbstd_group_size)
        check_positive("mapping_layers", self.mapping_layers)
        num, channels = self.mbstd_num_channels, _channels(self, 4)
        if num < 0 or (num and channels % num):
            raise ConfigError(
                f"mbstd_num_channels {num}",
                expected=f"0, or a divisor of the {channels} channels at 4x4",
                fix="use 1",
            )


class SynthesisBlock(nn.Module):
    """One resolution of the generator: one or two layers, RGB, and a residual branch.

    Args:
        in_channels: channels of the input; 0 for the first block, which starts from a constant.
        config: the generator's options.
        resolution: side of this block, in pixels.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, *, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        channels = _channels(config, resolution)
        self.architecture = config.architecture
        self.resolution = resolution
        self.is_first = in_channels == 0
        self.has_rgb = self.architecture == "skip" or resolution == config.resolution
        self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)
        if self.is_first:
            self.const = nn.Parameter(torch.randn(channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, channels, w_dim=config.w_dim, resolution=resolution, up=True
            )
        self.conv1 = SynthesisLayer(channels, channels, w_dim=config.w_dim, resolution=resolution)
        if self.has_rgb:
            self.torgb = ToRGB(channels, config.img_channels, w_dim=config.w_dim)
        if self.architecture == "resnet" and not self.is_first:
            self.skip = EqualizedConv2d(in_channels, channels, 1, bias=False)
        self.num_convs = 1 if self.is_first else 2

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        *,
        dtype: torch.dtype,
        noise_mode: NoiseMode,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the block.

        Args:
            x: [N, in_channels, R / 2, R / 2]; None for the first block.
            image: the sum of RGB so far, [N, img_channels, R / 2, R / 2]; None before it starts.
            ws: one style for each convolution and one for RGB, [N, num_convs + 1, w_dim].
            dtype: of the convolutions.
            noise_mode: see `Generator.forward`.
            generator: source of random noise.

        Returns:
            Features [N, channels, R, R] in `dtype`, and the image so far, float32.
        """
        styles = iter(ws.unbind(dim=1))
        noise = {"noise_mode": noise_mode, "generator": generator}
        if x is None:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, next(styles), **noise)
        elif self.architecture == "resnet":
            residual = upsample2d(self.skip(x, gain=math.sqrt(0.5)), self.kernel)
            x = self.conv0(x, next(styles), **noise)
            x = residual + self.conv1(x, next(styles), **noise, gain=math.sqrt(0.5))
        else:
            x = self.conv0(x, next(styles), **noise)
            x = self.conv1(x, next(styles), **noise)
        if image is not None:
            image = upsample2d(image, self.kernel)
        if self.has_rgb:
            rgb = self.torgb(x, next(styles)).to(ws.dtype)
            image = rgb if image is None else image + rgb
        return x, image


class SynthesisNetwork(nn.Module):
    """The synthesis network g: ws to images.

    Args:
        config: the generator's options.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.resolutions = _resolutions(config.resolution)
        in_channels = 0
        for resolution in self.resolutions:
            block = SynthesisBlock(in_channels, config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
            in_channels = _channels(config, resolution)
        self.num_ws = 2 * len(self.resolutions)  # one for each convolution, one for the last RGB

    def forward(
        self,
        ws: Tensor,
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Make images [N, img_channels, R, R] from ws [N, num_ws, w_dim].

        Arguments as in `Generator.forward`. Computes in `compute_dtype`, or in float64 if ws is.

        Raises:
            ValueError: if ws has another number of styles, or the noise mode is unknown.
        """
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must be [N, {self.num_ws}, w_dim], got {list(ws.shape)}")
        if noise_mode not in ("const", "random", "none"):
            raise ValueError(f"noise_mode must be const, random or none, got {noise_mode!r}")
        dtype = torch.float64 if ws.dtype == torch.float64 else self.compute_dtype
        x: Tensor | None = None
        image: Tensor | None = None
        start = 0
        for resolution in self.resolutions:
            block = self.get_submodule(f"b{resolution}")
            assert isinstance(block, SynthesisBlock)
            # RGB shares its style with the first layer of the next block.
            rows = ws[:, start : start + block.num_convs + 1]
            x, image = block(
                x, image, rows, dtype=dtype, noise_mode=noise_mode, generator=generator
            )
            start += block.num_convs
        assert image is not None
        return image


class Generator(AbstractGenerator):
    """The StyleGAN2 generator.

    Args:
        config: its options.
    """

    mapping: MappingNetwork
    synthesis: SynthesisNetwork

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


class DiscriminatorBlock(nn.Module):
    """One resolution of the discriminator: two layers, the second halves the size.

    Args:
        config: the discriminator's options.
        resolution: side of the input, in pixels.
    """

    kernel: Tensor

    def __init__(self, *, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        channels, out_channels = _channels(config, resolution), _channels(config, resolution // 2)
        self.architecture = config.architecture
        self.register_buffer("kernel", fir_kernel(RESAMPLE_TAPS), persistent=False)
        self.has_rgb = self.architecture == "skip" or resolution == config.resolution
        if self.has_rgb:
            self.fromrgb = EqualizedConv2d(config.img_channels, channels, 1, act="lrelu")
        self.conv0 = EqualizedConv2d(channels, channels, 3, act="lrelu")
        self.conv1 = EqualizedConv2d(channels, out_channels, 3, act="lrelu", down=True)
        if self.architecture == "resnet":
            self.skip = EqualizedConv2d(channels, out_channels, 1, bias=False, down=True)

    def forward(
        self, x: Tensor | None, image: Tensor | None, *, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Map features [N, channels, R, R] and image [N, img_channels, R, R] to half the size.

        The image is None once no later block reads it, the features before the first.
        """
        if self.has_rgb:
            assert image is not None
            rgb = image.to(dtype).contiguous(memory_format=torch.channels_last)
            rgb = self.fromrgb(rgb)
            x = rgb if x is None else x + rgb
            image = downsample2d(image, self.kernel) if self.architecture == "skip" else None
        assert x is not None
        if self.architecture == "resnet":
            residual = self.skip(x, gain=math.sqrt(0.5))
            x = residual + self.conv1(self.conv0(x), gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x))
        return x, image


class DiscriminatorEpilogue(nn.Module):
    """The last block: minibatch standard deviation, 4x4 convolution, two linear layers.

    Args:
        config: the discriminator's options.
        out_features: 1, or the width of the labels' embedding.
    """

    def __init__(self, *, config: DiscriminatorConfig, out_features: int) -> None:
        super().__init__()
        channels = _channels(config, 4)
        self.architecture = config.architecture
        self.mbstd_group_size = config.mbstd_group_size
        self.mbstd_num_channels = config.mbstd_num_channels
        if self.architecture == "skip":
            self.fromrgb = EqualizedConv2d(config.img_channels, channels, 1, act="lrelu")
        self.conv = EqualizedConv2d(channels + config.mbstd_num_channels, channels, 3, act="lrelu")
        self.fc = EqualizedLinear(channels * 16, channels, act="lrelu")
        self.out = EqualizedLinear(channels, out_features)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """Map features [N, channels, 4, 4] to [N, out_features]."""
        if self.architecture == "skip":
            x = x + self.fromrgb(image)
        if self.mbstd_num_channels > 0:
            x = minibatch_stddev(
                x, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels
            )
        x = self.conv(x)
        x = self.fc(x.flatten(1))
        out: Tensor = self.out(x)
        return out


class Discriminator(AbstractDiscriminator):
    """The StyleGAN2 discriminator. Labels, if any, enter by projection (StyleGAN2-ADA).

    Args:
        config: its options.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.c_dim = config.c_dim
        self.img_resolution = config.resolution
        self.img_channels = config.img_channels
        self.resolutions = _resolutions(config.resolution)[:0:-1]  # largest first, without 4
        for resolution in self.resolutions:
            block = DiscriminatorBlock(config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
        self.label_dim = _channels(config, 4) if config.c_dim > 0 else 0
        if config.c_dim > 0:
            self.mapping = MappingNetwork(
                z_dim=0,
                w_dim=self.label_dim,
                c_dim=config.c_dim,
                num_layers=config.mapping_layers,
            )
        self.b4 = DiscriminatorEpilogue(config=config, out_features=max(self.label_dim, 1))

    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, R, R] in [-1, 1], and labels [N, c_dim], to logits [N, 1].

        Raises:
            ValueError: if the images have another shape.
        """
        shape = [self.img_channels, self.img_resolution, self.img_resolution]
        if list(images.shape[1:]) != shape:
            raise ValueError(f"images must be {['N', *shape]}, got {list(images.shape)}")
        dtype = torch.float64 if images.dtype == torch.float64 else self.compute_dtype
        x: Tensor | None = None
        image: Tensor | None = images
        for resolution in self.resolutions:
            x, image = self.get_submodule(f"b{resolution}")(x, image, dtype=dtype)
        assert x is not None
        logits: Tensor = self.b4(x.to(images.dtype), image)  # the head decides in full precision
        if self.label_dim > 0:
            embedding = self.mapping(None, c)
            logits = (logits * embedding).sum(dim=1, keepdim=True) / math.sqrt(self.label_dim)
        return logits


def set_conv_form(generator: Generator, form: ConvForm) -> None:
    """Choose how modulated convolutions are computed: "scaled" (default) or "grouped"."""
    for module in generator.modules():
        if isinstance(module, SynthesisLayer | ToRGB):
            module.form = form


def _channels(config: GeneratorConfig | DiscriminatorConfig, resolution: int) -> int:
    return min(config.channel_base // resolution, config.channel_max)


def _resolutions(resolution: int) -> list[int]:
    return [2**level for level in range(2, resolution.bit_length())]


def _check_common(config: GeneratorConfig | DiscriminatorConfig) -> None:
    resolution = config.resolution
    if resolution < 8 or resolution & (resolution - 1):
        raise ConfigError(
            f"resolution {resolution}",
            expected="a power of two from 8",
            fix="choose 8, 16, 32, 64, 128, 256, 512 or 1024",
        )
    if config.architecture not in ("orig", "skip", "resnet"):
        raise ConfigError(
            f"architecture {config.architecture!r}",
            expected="orig, skip or resnet",
            fix="choose one of the three of the paper's figure 7",
        )
    if config.channel_base < resolution:
        raise ConfigError(
            f"channel_base {config.channel_base}",
            expected=f"at least the resolution, {resolution}",
            fix="raise it, so that the last block has a channel",
        )
    check_positive("img_channels", config.img_channels)
    check_positive("channel_max", config.channel_max)
    if config.c_dim < 0:
        raise ConfigError(f"c_dim {config.c_dim}", expected="0 or more", fix="use 0 for no labels")
