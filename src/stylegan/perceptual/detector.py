"""Interfaces of feature networks and perceptual distances, and their common functions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.errors import ConfigError, WeightsError
from stylegan.pixel_format import PixelFormat


class AbstractDetector(nn.Module, ABC):
    """A network that maps images to features.

    Attributes:
        name: its name in options and records, such as "inception-v3".
        weights: name of the file of its weights.
        weights_sha256: SHA-256 of that file, in lower case; empty if there is no file.
        resize: how images are resized to the network's input, as a name for records.
        num_features: number of features of an image.
    """

    name: str
    resize: str
    num_features: int
    weights: str = ""
    weights_sha256: str = ""

    @abstractmethod
    def prepare(self, images: Tensor) -> Tensor:
        """Resize and normalize images for the network.

        Args:
            images: uint8 [N, C, H, W] of any size; C is 1 (grayscale) or 3 (RGB).

        Returns:
            [N, 3, S, S] on the same device, in the network's own range. A network that resizes by
            itself returns [N, 3, H, W].

        Raises:
            ValueError: if the images are of another shape or type.
        """

    @abstractmethod
    def forward(self, prepared: Tensor) -> Tensor:
        """Map the output of `prepare` to features, float32 [N, num_features].

        Images are processed in small batches, so memory does not grow with N.
        """

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features to class probabilities [N, K], for the Inception score.

        Raises:
            ConfigError: if the network does not classify.
        """
        raise ConfigError(
            f"the feature network {self.name} gives no probabilities of classes; choose one that "
            "classifies, such as inception-v3"
        )


class AbstractDistance(nn.Module, ABC):
    """A perceptual distance between images.

    First-order gradients with respect to images work; the weights have none.

    Attributes:
        name: its name in options and records, such as "lpips-vgg16".
        weights: name of the file of its weights.
        weights_sha256: SHA-256 of that file, in lower case; empty if there is no file.
        smallest: side of the smallest supported images, in pixels.
        largest: side in pixels to which callers reduce larger images, as in the papers.
    """

    name: str
    weights: str = ""
    weights_sha256: str = ""
    smallest: int = 1
    largest: int = 256
    _cpu_batch = 2  # pairs

    @abstractmethod
    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the features of each layer, scaled so that squared differences sum to the distance.

        Args:
            images: float [N, C, H, W], nominally in [-1, 1] and not clamped; C is 1 or 3.

        Yields:
            float32 [N, ...] for each layer, computed lazily.
        """

    def view(self, images: Tensor, pixels: PixelFormat) -> Tensor:
        """Return images [N, C, H, W] in [-1, 1] as the network takes them: grey or RGB.

        Args:
            images: of any channels.
            pixels: what the channels are; see `PixelFormat.as_rgb`.
        """
        return pixels.flat(images)

    def embed(self, images: Tensor) -> Tensor:
        """Map images to vectors whose squared Euclidean distance is the perceptual distance.

        Args:
            images: float [N, C, H, W], nominally in [-1, 1] and not clamped; C is 1 or 3.

        Returns:
            float32 [N, K]; K depends on the size of the images, and can be millions.
        """
        return torch.cat([layer.flatten(1) for layer in self.layers(images)], dim=1)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, float32 [N].

        Memory is that of one layer for a few pairs.

        Args:
            a: float [N, C, H, W], as for `embed`.
            b: the same shape.
        """
        if a.shape != b.shape:
            raise ValueError(f"distance takes pairs, got {list(a.shape)} and {list(b.shape)}")
        parts = zip(in_batches(a, self._cpu_batch), in_batches(b, self._cpu_batch), strict=True)
        return torch.cat([self._distance(*pair) for pair in parts])

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        layers = zip(self.layers(a), self.layers(b), strict=True)
        terms = [(x - y).square().flatten(1).sum(dim=1) for x, y in layers]
        return torch.stack(terms).sum(dim=0)


def in_batches(images: Tensor, num: int) -> tuple[Tensor, ...]:
    """Split [N, ...] into batches, which bounds the memory of a network.

    Args:
        images: at least one batch is returned, also for N = 0.
        num: batch size on a CPU, where small batches are fast because they stay in its cache; on
            other devices it is 64.
    """
    return torch.split(images, num if images.device.type == "cpu" else 64)


def as_rgb(images: Tensor) -> Tensor:
    """Expand grayscale [N, 1, H, W] to [N, 3, H, W]; RGB is unchanged.

    Raises:
        ValueError: if the number of channels is neither 1 nor 3.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"expected [N, 1 or 3, H, W], got {list(images.shape)}")
    return images.expand(-1, 3, -1, -1)


def as_rgb_uint8(images: Tensor) -> Tensor:
    """Check that images are uint8, and expand grayscale to RGB.

    Raises:
        ValueError: if they are of another type or shape.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"a feature network takes uint8 images, got {images.dtype}")
    return as_rgb(images)


def resize_linear(images: Tensor, size: int | tuple[int, int], *, antialias: bool) -> Tensor:
    """Resize [N, C, H, W] bilinearly to float32, with half-pixel centers.

    Args:
        images: any real type.
        size: height and width, or one number for both.
        antialias: widen the filter for reduction, so that no pixel is skipped.
    """
    return F.interpolate(
        images.to(torch.float32),
        size=size,
        mode="bilinear",
        align_corners=False,
        antialias=antialias,
    )


def unit_norm(features: Tensor) -> Tensor:
    """Normalize [N, C, H, W] to unit length over C at each position, as in LPIPS.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", section 3; the small constant is that of the published code.
    """
    # vector_norm: the gradient of a root of a sum is NaN where all features are 0.
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + 1e-10)


def fold_batch_norm(
    state: Mapping[str, Tensor], conv: str, norm: str, *, eps: float
) -> tuple[Tensor, Tensor]:
    """Fold the batch normalization after a convolution without bias into the convolution.

    Args:
        state: tensors by name.
        conv: name of the convolution.
        norm: name of the normalization.
        eps: constant that is added to the variance.

    Returns:
        Weight and bias of the folded convolution, float32.

    Raises:
        KeyError: if a tensor is missing.
    """
    names = ("weight", "bias", "running_mean", "running_var")
    gain, bias, mean, variance = (state[f"{norm}.{name}"].double() for name in names)
    gain = gain / (variance + eps).sqrt()
    weight = state[f"{conv}.weight"].double() * gain[:, None, None, None]
    return weight.float(), (bias - mean * gain).float()


def load_weights(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights into a network, in eval mode and without gradients.

    Raises:
        WeightsError: if names or shapes do not match the network.
    """
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(
            f"the weights do not fit {type(network).__name__} ({lines[-1].strip()[:200]}); "
            "use the published file"
        ) from error
    network.requires_grad_(False).eval()
