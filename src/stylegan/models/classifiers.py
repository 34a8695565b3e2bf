"""Attribute classifiers: discriminators whose logit says whether an image has something."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.models.base import AbstractDiscriminator
from stylegan.ops.box import downsample_box
from stylegan.ops.normalize import stddev_group


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network that tells whether images have an attribute.

    Source: Karras et al. 2019 (StyleGAN), section 4.2, whose classifiers have the
    discriminator's architecture.

    Args:
        name: of the attribute, such as "wavy-hair".
        index: of the attribute among those of its set, from 0.
        network: a discriminator without labels, at its full level of detail, in eval mode.
        sha256: of the file that the weights came from, in hexadecimal.

    Raises:
        ValueError: if the network takes or guesses labels, or is still growing.
    """

    name: str
    index: int
    network: AbstractDiscriminator = field(repr=False)
    sha256: str

    def __post_init__(self) -> None:
        """Check that the network gives one number for one image."""
        if self.network.c_dim > 0:
            raise ValueError(f"a classifier has no labels, got {self.network.c_dim}")
        if self.network.lod != 0:
            raise ValueError(f"a classifier has lod 0, got {self.network.lod:g}")

    @property
    def resolution(self) -> int:
        """Side of the images that the network sees, in pixels."""
        return self.network.img_resolution

    def check(self, *, img_channels: int, resolution: int) -> None:
        """Check that `logits` takes images of a kind, before any are made.

        Args:
            img_channels: their channels.
            resolution: their side, in pixels.

        Raises:
            ConfigError: if they have other channels than the network, or are smaller than its
                images or no power of two times as large.
        """
        if img_channels != self.network.img_channels:
            raise ConfigError(
                f"images of {img_channels} channels for the classifier {self.name}",
                expected=f"{self.network.img_channels}, as it was trained on",
                fix="train classifiers on such images",
            )
        factor, rest = divmod(resolution, self.resolution)
        if rest or factor < 1 or factor & (factor - 1):
            raise ConfigError(
                f"images of {resolution}x{resolution} for the classifier {self.name}",
                expected=f"{self.resolution}x{self.resolution}, or that times a power of two",
                fix="train classifiers with --resolution of the images or below",
            )

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Map images to logits, positive where the attribute is there.

        Larger images are reduced by box means. A network with a minibatch standard deviation,
        as official files may have one, mixes images within its groups: images n and n + M of N
        with M = N / group size. What is left over from whole groups is a group of its own.

        Args:
            images: float [N, C, H, H] in [-1, 1], on the network's device.

        Returns:
            float32 [N]. The probability that the attribute is there is their sigmoid.

        Raises:
            ConfigError: as `check`.
            ValueError: if images are not square.
        """
        num, channels, height, width = images.shape
        if height != width:
            raise ValueError(f"images must be square, got {height}x{width}")
        self.check(img_channels=channels, resolution=height)
        small = downsample_box(images.to(torch.float32), factor=height // self.resolution)
        group = stddev_group(self.network.config.mbstd_group_size, num)
        whole = num - num % group if num else 0
        parts = [part for part in (small[:whole], small[whole:]) if len(part)]
        found = [self.network(part).squeeze(1) for part in parts]
        return torch.cat(found) if found else small.new_empty([0])
