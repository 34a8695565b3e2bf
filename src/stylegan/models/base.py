"""The interfaces of generators and discriminators, whatever their family.

A class is either one of the abstract classes here, or a final one without subclasses.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan.image_size import ImageSize
from stylegan.models.growth import max_lod, resolution_at
from stylegan.models.sizes import SizesConfig, block_resolutions
from stylegan.nn.noise import NoiseMode, check_noise_mode
from stylegan.pixel_format import PixelFormat
from stylegan.rng import Source

Images = Tensor | Sequence[Tensor]
"""Images [N, C, H, W], or an image pyramid: one tensor for each size, largest first."""


class GeneratorConfig(SizesConfig, Protocol):
    """Options that every generator has; each family's are a frozen dataclass."""

    @property
    def z_dim(self) -> int: ...  # noqa: D102


class DiscriminatorConfig(SizesConfig, Protocol):
    """Options that every discriminator has; each family's are a frozen dataclass."""

    @property
    def mbstd_group_size(self) -> int | None: ...  # noqa: D102


class AbstractSynthesis(nn.Module, ABC):
    """The part of a generator that makes images from ws.

    Attributes:
        compute_dtype: dtype of the convolutions.
        activation_checkpointing: compute blocks again in the backward pass, to save memory.
        lod: level of detail.
        size: of the images at full resolution.
        resolutions: nominal resolutions of the blocks, from 4 up.
        num_ws: number of style inputs.
    """

    def __init__(self, size: ImageSize, *, num_ws: int) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.activation_checkpointing = False
        self.lod = 0.0
        self.size = size
        self.resolutions = block_resolutions(size)
        self.num_ws = num_ws

    @property
    def current_resolution(self) -> int:
        """Nominal resolution of the images at the current level of detail."""
        return resolution_at(self.size.nominal, self.lod)

    @abstractmethod
    def forward(
        self, ws: Tensor, noise_mode: NoiseMode = "const", generator: Source | None = None
    ) -> Tensor:
        """Make images [N, img_channels, H, W] from ws [N, num_ws, w_dim].

        Other arguments as in `AbstractGenerator.forward`. Computes in `compute_dtype`, or in
        float64 if ws is.

        Raises:
            ValueError: if ws has another number of styles, or the noise mode is unknown.
        """

    def check_inputs(self, ws: Tensor, noise_mode: NoiseMode) -> None:
        """Raise ValueError unless the arguments of `forward` are valid."""
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must be [N, {self.num_ws}, w_dim], got {list(ws.shape)}")
        check_noise_mode(noise_mode)


class AbstractGenerator(nn.Module, ABC):
    """A generator: latents to styles to images.

    Attributes:
        config: the family's frozen dataclass of options, from which an equal network is built.
        mapping: module, `(z, c=None, truncation_psi=1, truncation_cutoff=None)` to ws
            [N, num_ws, w_dim]; holds the mean `w_avg`.
        synthesis: module, `(ws, noise_mode="const")` to images [N, C, H, W], float32,
            nominally in [-1, 1]; in a growing network H x W is `current_size`.
        z_dim: width of z.
        w_dim: width of w.
        c_dim: width of the labels, 0 for none.
        num_ws: number of style inputs.
        img_size: height and width of the images.
        img_resolution: nominal resolution, which is the side if that is a power of two; see
            `image_size`.
        img_channels: channels of the images.
        is_growing: whether the network has a level of detail.
        class_names: the name of each class, by number; empty if there are no labels or names.
        pixels: what the channels are, and how images are stored, as in the training set.
    """

    config: Any
    class_names: tuple[str, ...] = ()
    mapping: nn.Module
    synthesis: AbstractSynthesis
    is_growing: bool = False

    def __init__(
        self,
        config: GeneratorConfig,
        *,
        mapping: nn.Module,
        synthesis: AbstractSynthesis,
        w_dim: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.w_dim = w_dim
        self.c_dim = config.c_dim
        self.num_ws = synthesis.num_ws
        self.img_size = config.size
        self.img_resolution = config.size.nominal
        self.img_channels = config.img_channels
        self.pixels = PixelFormat.of_channels(config.img_channels)
        self.synthesis = synthesis
        self.mapping = mapping

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the convolutions: float32, bfloat16 or float16. Weights stay float32."""
        return self.synthesis.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.synthesis.compute_dtype = dtype

    @property
    def activation_checkpointing(self) -> bool:
        """Whether blocks are computed again in the backward pass, to save memory."""
        return self.synthesis.activation_checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, is_enabled: bool) -> None:
        self.synthesis.activation_checkpointing = is_enabled

    @property
    def lod(self) -> float:
        """Level of detail of a growing network: 0 is full resolution, each 1 halves it.

        Setting it raises ValueError beyond the base, or if the network does not grow.
        """
        return self.synthesis.lod

    @lod.setter
    def lod(self, lod: float) -> None:
        _check_lod(lod, self.img_resolution, is_growing=self.is_growing)
        self.synthesis.lod = float(lod)

    @property
    def current_size(self) -> ImageSize:
        """Size of the images at the current level of detail, the larger one while fading."""
        return self.img_size.at(self.synthesis.current_resolution)

    @property
    def w_avg(self) -> Tensor | None:
        """The mean of w, [w_dim], the center of truncation; None without a mapping network."""
        return getattr(self.mapping, "w_avg", None)

    @abstractmethod
    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Move the mean of w towards that of ws [N, num_ws, w_dim], before mixing."""

    def discriminator_input(
        self,
        ws: Tensor,
        noise_mode: NoiseMode = "const",
        generator: Source | None = None,
    ) -> Images:
        """Make the discriminator's input from ws: images, or an image pyramid.

        Arguments as in `forward`.
        """
        images: Tensor = self.synthesis(ws, noise_mode=noise_mode, generator=generator)
        return images

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
        generator: Source | None = None,
    ) -> Tensor:
        """Make images from latents.

        Args:
            z: [N, z_dim], standard normal.
            c: labels, [N, c_dim]; None if the network has none.
            truncation_psi: 1 for full variation, 0 for the mean image.
            truncation_cutoff: number of styles to truncate, coarsest first; None for all.
            noise_mode: "const" for the stored noise, "random" for new noise, "none" for none.
            generator: source of random noise; None for torch's global generator.

        Returns:
            [N, img_channels, H, W] of `current_size`, float32, nominally in [-1, 1].
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        images: Tensor = self.synthesis(ws, noise_mode=noise_mode, generator=generator)
        return images


class AbstractDiscriminator(nn.Module, ABC):
    """A discriminator: images to logits, positive for real.

    Attributes:
        config: the family's frozen dataclass of options, from which an equal network is built.
        c_dim: width of the labels, 0 for none.
        img_size: height and width of the images.
        img_resolution: nominal resolution, which is the side if that is a power of two; see
            `image_size`.
        img_channels: channels of the images.
        compute_dtype: dtype of the convolutions. Weights stay float32.
        activation_checkpointing: compute blocks again in the backward pass, to save memory.
        is_growing: whether the network has a level of detail.
        guesses_labels: whether the network predicts labels, which must be one-hot, instead of
            taking them as input.
    """

    config: Any
    is_growing: bool = False
    guesses_labels: bool = False

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.c_dim = config.c_dim
        self.img_size = config.size
        self.img_resolution = config.size.nominal
        self.img_channels = config.img_channels
        self.compute_dtype = torch.float32
        self.activation_checkpointing = False
        self._lod = 0.0

    @property
    def lod(self) -> float:
        """Level of detail, as of a generator."""
        return self._lod

    @lod.setter
    def lod(self, lod: float) -> None:
        _check_lod(lod, self.img_resolution, is_growing=self.is_growing)
        self._lod = float(lod)

    @property
    def current_resolution(self) -> int:
        """Nominal resolution of the images at the current level of detail."""
        return resolution_at(self.img_resolution, self._lod)

    @property
    def current_size(self) -> ImageSize:
        """Size of the images at the current level of detail, the larger one while fading."""
        return self.img_size.at(self.current_resolution)

    @property
    def block_layers(self) -> list[nn.Module]:
        """The layers before the last block, those nearest to the image first."""
        blocks = {
            int(name.removeprefix("b")): block
            for name, block in self.named_children()
            if name.removeprefix("b").isdecimal()
        }
        return [
            layer
            for resolution in sorted(blocks, reverse=True)[:-1]
            for layer in blocks[resolution].children()
        ]

    @abstractmethod
    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1], and labels [N, c_dim], to logits [N, 1].

        With a level of detail, H x W is `current_size`. A network that takes image
        pyramids also takes the largest images alone, and computes the rest.
        """

    def logits_and_labels(
        self, images: Images, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map images and labels to logits [N, 1] and, if it predicts them, labels [N, c_dim].

        Arguments as in `forward`.
        """
        return self(images, c), None


def dtype_for(x: Tensor, compute_dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a network computes: its own, or float64 for float64 inputs."""
    return torch.float64 if x.dtype == torch.float64 else compute_dtype


@dataclass(kw_only=True)
class Networks:
    """The networks of one model; None for those that a file does not have."""

    generator: AbstractGenerator | None = None
    generator_ema: AbstractGenerator | None = None
    discriminator: AbstractDiscriminator | None = None

    def items(self) -> Iterator[tuple[str, AbstractGenerator | AbstractDiscriminator]]:
        """Yield name and network of those that are not None."""
        for name in ("generator", "generator_ema", "discriminator"):
            network = getattr(self, name)
            if network is not None:
                yield name, network


def _check_lod(lod: float, resolution: int, *, is_growing: bool) -> None:
    top = max_lod(resolution) if is_growing else 0
    if not 0 <= lod <= top:
        kind = f"from 0 to {top}" if is_growing else "0, as this network does not grow"
        raise ValueError(f"lod must be {kind}, got {lod}")


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters, without buffers such as noise and w_avg."""
    return sum(parameter.numel() for parameter in network.parameters())
