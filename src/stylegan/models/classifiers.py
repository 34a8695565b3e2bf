"""Attribute classifiers: discriminators with a logit for an attribute of images."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.models.base import AbstractDiscriminator
from stylegan.ops.box import downsample_box
from stylegan.ops.normalize import stddev_group


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network that predicts whether images have an attribute.

    Source: Karras et al. 2019 (StyleGAN), section 4.2, whose classifiers have the
    discriminator's architecture.

    Args:
        name: name of the attribute, such as "wavy-hair".
        index: index of the attribute in its set, from 0.
        network: a discriminator without labels, at its full resolution, in eval mode.
        sha256: SHA-256 of the file that the weights were read from, in hexadecimal.

    Raises:
        ValueError: if the network takes or predicts labels, or is still growing.
    """

    name: str
    index: int
    network: AbstractDiscriminator = field(repr=False)
    sha256: str

    def __post_init__(self) -> None:
        """Check that the network computes one number for each image."""
        if self.network.c_dim > 0:
            raise ValueError(f"a classifier has no labels, got {self.network.c_dim}")
        if self.network.lod != 0:
            raise ValueError(f"a classifier has lod 0, got {self.network.lod:g}")

    @property
    def size(self) -> ImageSize:
        """Size of the images that the network takes."""
        return self.network.img_size

    def check(self, *, img_channels: int, size: ImageSize) -> None:
        """Check that `logits` takes images of a size.

        Args:
            img_channels: channels of the images.
            size: of the images.

        Raises:
            ConfigError: if the network takes other channels, or the size is not that of the network
                times a power of two.
        """
        if img_channels != self.network.img_channels:
            raise ConfigError(
                f"the classifier {self.name} takes images of {self.network.img_channels} channels, "
                f"got {img_channels}"
            )
        self._factor(size)

    def _factor(self, size: ImageSize) -> int:
        """Return by which factor images of a size are reduced; ConfigError if there is none."""
        factor = size.factor_to(self.size)
        if factor is None:
            raise ConfigError(
                f"the classifier {self.name} takes images of {self.size}, or that times a power of "
                f"two, got {size}",
                fix="train classifiers at the resolution of the images or below",
            )
        return factor

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Map images to logits, positive for images with the attribute.

        Larger images are reduced by box means. A network with a minibatch standard deviation, as in
        some official files, mixes images within its groups: images n and n + M of N with
        M = N / group size. Images left over from whole groups form another group.

        Args:
            images: float [N, C, H, W] in [-1, 1], on the network's device.

        Returns:
            float32 [N]. Their sigmoid is the probability of the attribute.

        Raises:
            ConfigError: as `check`.
        """
        num, channels, height, width = images.shape
        size = ImageSize(height, width)
        self.check(img_channels=channels, size=size)
        small = downsample_box(images.to(torch.float32), factor=self._factor(size))
        group = stddev_group(self.network.config.mbstd_group_size, num)
        end = num - num % group if num else 0  # of the whole groups
        batches = [batch for batch in (small[:end], small[end:]) if len(batch)]
        logits = [self.network(batch).squeeze(1) for batch in batches]
        return torch.cat(logits) if logits else small.new_empty([0])
