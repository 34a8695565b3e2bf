"""ProGAN, which is also StyleGAN's configuration A.

Source: Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and
Variation"; layers from table 2, fades from figure 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylegan.errors import check_positive
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
from stylegan.nn.adain import DenseInput
from stylegan.nn.checkpointing import checkpointed
from stylegan.nn.equalized import HE_GAIN, EqualizedConv2d, ResampleConv2d
from stylegan.nn.mapping import checked_input
from stylegan.nn.noise import NoiseMode
from stylegan.nn.progressive import DiscriminatorBlock, DiscriminatorHead, discriminate
from stylegan.ops.box import fade_in
from stylegan.ops.normalize import pixel_norm
from stylegan.ops.precision import exact_float32
from stylegan.rng import Source


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Sized):
    """Options of `Generator`. The defaults are the paper's.

    Attributes:
        resolution: side of square images, or "HEIGHTxWIDTH", such as 64 or "96x160".
        img_channels: channels of the images.
        z_dim: width of z.
        c_dim: width of the labels, 0 for none.
        channel_base: a block at the nominal resolution r has `channel_base / r` channels,
        channel_max: but at most this many.
    """

    resolution: Resolution
    img_channels: int = 3
    z_dim: int = 512
    c_dim: int = 0
    channel_base: int = 16384
    channel_max: int = 512

    def __post_init__(self) -> None:
        """Check every value."""
        check_sizes(self)
        check_positive("z_dim", self.z_dim)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(Sized):
    """Options of `Discriminator`. The defaults are those of the official code's later presets.

    Attributes:
        resolution: side of square images, or "HEIGHTxWIDTH", such as 64 or "96x160".
        img_channels: channels of the images.
        c_dim: width of the labels, 0 for none.
        channel_base: a block at the nominal resolution r has `channel_base / r` channels,
        channel_max: but at most this many.
        fused_scale: average 2x2 pixels as part of the convolution, before the activation;
            otherwise after the activation. Official weight files exist for both.
        mbstd_group_size: samples in a group of the minibatch standard deviation; None for the
            whole batch, as in the paper. The official code has 4, and 16 to reproduce the paper.
        mbstd_num_channels: channels that it adds; 0 leaves it out.
    """

    resolution: Resolution
    img_channels: int = 3
    c_dim: int = 0
    channel_base: int = 16384
    channel_max: int = 512
    fused_scale: bool = True
    mbstd_group_size: int | None = 4
    mbstd_num_channels: int = 1

    def __post_init__(self) -> None:
        """Check every value."""
        check_sizes(self)
        check_minibatch_stddev(
            self, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels
        )


class LatentNormalization(nn.Module):
    """Stand-in for a mapping network: normalizes z with the labels appended.

    Args:
        z_dim: width of z.
        c_dim: width of the labels, 0 for none.
    """

    def __init__(self, *, z_dim: int, c_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map z [N, z_dim] and c [N, c_dim] to ws [N, 1, z_dim + c_dim].

        Raises:
            ValueError: if z or c is missing or has another width, or if `truncation_psi` is
                not 1, as there is no mean of w.
        """
        if truncation_psi != 1:
            raise ValueError(f"ProGAN has no truncation, so psi must be 1, got {truncation_psi}")
        inputs = [checked_input(z, self.z_dim, "z")]
        if self.c_dim > 0:
            inputs.append(checked_input(c, self.c_dim, "c"))
        return pixel_norm(torch.cat(inputs, dim=1)).unsqueeze(1)


class SynthesisBlock(nn.Module):
    """One resolution of the generator: two layers, and an RGB layer.

    Args:
        in_channels: channels of the input; at the base, the width of the latents.
        config: the generator's options.
        resolution: nominal resolution of this block.
    """

    def __init__(self, in_channels: int, *, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        channels = channels_at(config, resolution)
        last = EqualizedConv2d(channels, channels, 3, act="lrelu", weight_gain=HE_GAIN)
        self.is_first = resolution == 4
        if self.is_first:
            self.dense = DenseInput(
                channels, w_dim=in_channels, size=config.size.base, styles=False, noise=False
            )
            self.conv = last
        else:
            self.conv0 = ResampleConv2d(in_channels, channels, resample="up")
            self.conv1 = last
        self.torgb = EqualizedConv2d(channels, config.img_channels, 1)

    def forward(self, x: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Map features [N, in_channels, H / 2, W / 2] to [N, channels, H, W].

        At the base the input is the latents, [N, in_channels].
        """
        if self.is_first:
            return pixel_norm(self.conv(self.dense(None, x, dtype=dtype, noise=None)))
        return pixel_norm(self.conv1(pixel_norm(self.conv0(x))))


class SynthesisNetwork(AbstractSynthesis):
    """Normalized latents to images, at the current level of detail.

    Args:
        config: the generator's options.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config.size, num_ws=1)
        in_channels = config.z_dim + config.c_dim
        for resolution in self.resolutions:
            block = SynthesisBlock(in_channels, config=config, resolution=resolution)
            self.add_module(f"b{resolution}", block)
            in_channels = channels_at(config, resolution)

    @exact_float32
    def forward(
        self, ws: Tensor, noise_mode: NoiseMode = "const", generator: Source | None = None
    ) -> Tensor:
        """Make images [N, img_channels, H, W] from ws [N, 1, w_dim].

        There is no noise, so that `noise_mode` and `generator` have no effect. Computes in
        `compute_dtype`, or in float64 if ws is.

        Raises:
            ValueError: if ws has another number of styles, or the noise mode is unknown.
        """
        self.check_inputs(ws, noise_mode)
        dtype = dtype_for(ws, self.compute_dtype)
        top, weight = self.current_resolution, fade_weight(self.lod)
        rgbs = []
        x = ws[:, 0]
        for resolution in self.resolutions:
            if resolution > top:
                break
            block = self.get_submodule(f"b{resolution}")
            assert isinstance(block, SynthesisBlock)
            x = checkpointed(block, self.activation_checkpointing)(x, dtype=dtype)
            if resolution == top or (weight > 0 and resolution == top // 2):
                rgbs.append(block.torgb(x).to(ws.dtype))
        return fade_in(rgbs, weight)


class Generator(AbstractGenerator):
    """The generator of ProGAN.

    In terms of the later networks it has one style input, the normalized latents with the
    labels appended, and no truncation.

    Args:
        config: its options.
    """

    mapping: LatentNormalization
    synthesis: SynthesisNetwork
    is_growing = True

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(
            config,
            synthesis=SynthesisNetwork(config),
            mapping=LatentNormalization(z_dim=config.z_dim, c_dim=config.c_dim),
            w_dim=config.z_dim + config.c_dim,
        )

    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Do nothing, as there is no mean of w."""


class Discriminator(AbstractDiscriminator):
    """The discriminator of ProGAN. With labels it is an AC-GAN's, which also predicts them.

    Args:
        config: its options.
    """

    b4: DiscriminatorHead
    is_growing = True
    guesses_labels = True

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        for resolution in block_resolutions(config.size)[:0:-1]:
            block = DiscriminatorBlock(
                config.img_channels,
                channels_at(config, resolution),
                channels_at(config, resolution // 2),
                fused=config.fused_scale,
            )
            self.add_module(f"b{resolution}", block)
        self.b4 = DiscriminatorHead(
            config.img_channels,
            channels_at(config, 4),
            base=config.size.base,
            out_features=1 + config.c_dim,
            mbstd_group_size=config.mbstd_group_size,
            mbstd_num_channels=config.mbstd_num_channels,
        )

    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1] to logits [N, 1].

        H and W are the size at the level of detail. Labels have no effect here: the loss takes
        them from `logits_and_labels`.

        Raises:
            ValueError: if the images have another shape.
        """
        return self.logits_and_labels(images)[0]

    @exact_float32
    def logits_and_labels(self, images: Images, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map images to logits [N, 1] and logits of their labels [N, c_dim], whatever c is.

        Source: Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs".

        Raises:
            ValueError: if the images have another shape.
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
        return out[:, :1], out[:, 1:]
