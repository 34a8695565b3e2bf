"""What every generator and discriminator promises, whatever its family.

Abstract or final: a class is one of the interfaces here, or a leaf that nobody subclasses.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan.models.growth import max_lod
from stylegan.nn.noise import NoiseMode
from stylegan.rng import Source

Images = Tensor | Sequence[Tensor]
"""Images [N, C, R, R], or, for networks of mipmaps, those of each resolution, largest first."""


class GeneratorConfig(Protocol):
    """What the options of every generator have in common; each family's are a frozen dataclass."""

    @property
    def resolution(self) -> int: ...  # noqa: D102
    @property
    def img_channels(self) -> int: ...  # noqa: D102
    @property
    def z_dim(self) -> int: ...  # noqa: D102
    @property
    def c_dim(self) -> int: ...  # noqa: D102


class DiscriminatorConfig(Protocol):
    """What the options of every discriminator have in common, likewise."""

    @property
    def resolution(self) -> int: ...  # noqa: D102
    @property
    def img_channels(self) -> int: ...  # noqa: D102
    @property
    def c_dim(self) -> int: ...  # noqa: D102
    @property
    def mbstd_group_size(self) -> int | None: ...  # noqa: D102


class AbstractGenerator(nn.Module, ABC):
    """A generator: latents to styles to images.

    Attributes:
        config: the family's frozen dataclass of options, from which an equal network is built.
        z_dim: width of z.
        w_dim: width of w.
        c_dim: width of the labels, 0 for none.
        num_ws: number of style inputs.
        img_resolution: side of the images, in pixels.
        img_channels: channels of the images.
        mapping: module, `(z, c=None, truncation_psi=1, truncation_cutoff=None)` to ws
            [N, num_ws, w_dim]; holds the mean `w_avg`.
        synthesis: module, `(ws, noise_mode="const")` to images [N, C, R, R], float32,
            nominally in [-1, 1]; in a growing network R is `img_resolution / 2**floor(lod)`.
        is_growing: whether the network has a level of detail.
    """

    config: Any
    z_dim: int
    w_dim: int
    c_dim: int
    num_ws: int
    img_resolution: int
    img_channels: int
    mapping: nn.Module
    synthesis: nn.Module
    is_growing: bool = False

    @property
    @abstractmethod
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the convolutions: float32, bfloat16 or float16. Weights stay float32."""

    @compute_dtype.setter
    @abstractmethod
    def compute_dtype(self, dtype: torch.dtype) -> None: ...

    @property
    def recompute(self) -> bool:
        """Whether blocks keep their inputs only, and compute the rest again for gradients."""
        return bool(getattr(self.synthesis, "recompute", False))

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.synthesis.recompute = recompute  # type: ignore[assignment]

    @property
    def lod(self) -> float:
        """Level of detail of a growing network: 0 is full resolution, each 1 halves it.

        Setting it raises ValueError beyond 4x4, or if the network does not grow.
        """
        return float(getattr(self.synthesis, "lod", 0.0))

    @lod.setter
    def lod(self, lod: float) -> None:
        _check_lod(lod, self.img_resolution, is_growing=self.is_growing)
        if self.is_growing:
            self.synthesis.lod = float(lod)  # type: ignore[assignment]  # a plain attribute

    @property
    def w_avg(self) -> Tensor | None:
        """The mean of w, [w_dim], the centre of truncation; None where nothing is mapped."""
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
        """Synthesize the input of the discriminator from ws: images or an image pyramid.

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
            c: labels, [N, c_dim]; None where the network has none.
            truncation_psi: 1 for full variation, 0 for the mean image.
            truncation_cutoff: truncate only so many styles, coarsest first; None means all.
            noise_mode: "const" takes the stored noise, "random" draws it, "none" adds none.
            generator: source of random noise; None takes torch's global one.

        Returns:
            [N, img_channels, img_resolution, img_resolution], float32, nominally in [-1, 1].
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        images: Tensor = self.synthesis(ws, noise_mode=noise_mode, generator=generator)
        return images


class AbstractDiscriminator(nn.Module, ABC):
    """A discriminator: images to logits, positive for real.

    Attributes:
        config: the family's frozen dataclass of options, from which an equal network is built.
        c_dim: width of the labels, 0 for none.
        img_resolution: side of the images, in pixels.
        img_channels: channels of the images.
        compute_dtype: dtype of the convolutions. Weights stay float32.
        recompute: whether blocks keep their inputs only, and compute the rest again for gradients.
        is_growing: whether the network has a level of detail.
        guesses_labels: whether it guesses labels, which must be one-hot, and takes none.
    """

    config: Any
    c_dim: int
    img_resolution: int
    img_channels: int
    compute_dtype: torch.dtype
    is_growing: bool = False
    guesses_labels: bool = False
    recompute: bool = False
    _lod: float = 0.0

    @property
    def lod(self) -> float:
        """Level of detail, as of a generator."""
        return self._lod

    @lod.setter
    def lod(self, lod: float) -> None:
        _check_lod(lod, self.img_resolution, is_growing=self.is_growing)
        self._lod = float(lod)

    @abstractmethod
    def forward(self, images: Images, c: Tensor | None = None) -> Tensor:
        """Map images [N, C, R, R] in [-1, 1], and labels [N, c_dim], to logits [N, 1].

        With a level of detail, R is `img_resolution / 2**floor(lod)`. A network of mipmaps
        takes the images of each resolution, largest first, or makes them of the largest.
        """

    def logits_and_labels(
        self, images: Images, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map images and labels to logits [N, 1] and, if it guesses labels, theirs [N, c_dim].

        Arguments as in `forward`.
        """
        return self(images, c), None


@dataclass(kw_only=True)
class Networks:
    """The networks of one model; None where a file does not have one."""

    generator: AbstractGenerator | None = None
    generator_ema: AbstractGenerator | None = None
    discriminator: AbstractDiscriminator | None = None

    def items(self) -> Iterator[tuple[str, AbstractGenerator | AbstractDiscriminator]]:
        """Yield name and network of those that are there."""
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
    """Count trainable numbers; buffers such as noise and w_avg are not among them."""
    return sum(parameter.numel() for parameter in network.parameters())
