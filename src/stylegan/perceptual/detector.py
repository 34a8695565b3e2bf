"""What a feature network and a perceptual distance are, and what they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.errors import ConfigError, WeightsError


class AbstractDetector(nn.Module, ABC):
    """A network that turns images into features, whose statistics are then compared.

    Attributes:
        name: how users call it, such as "inception-v3".
        weights: name of the file of its weights.
        weights_sha256: that file's checksum, in lower case; empty for weights of no file.
        resize: how images come to the network's size, as a name for records.
        num_features: length of an image's features.
    """

    name: str
    resize: str
    num_features: int
    weights: str = ""
    weights_sha256: str = ""

    @abstractmethod
    def prepare(self, images: Tensor) -> Tensor:
        """Resize and normalize images as the network wants them.

        Args:
            images: uint8 [N, C, H, W] of any size; C is 1 (grey) or 3 (RGB).

        Returns:
            [N, 3, S, S] on the same device; what its numbers mean is the network's own. A network
            that resizes by itself gives [N, 3, H, W], so images that were of different sizes may
            still be.

        Raises:
            ValueError: if the images are of another shape or type.
        """

    @abstractmethod
    def forward(self, prepared: Tensor) -> Tensor:
        """Map what `prepare` gave, of one size, to features, float32 [N, num_features].

        The network sees a few images at a time, so its memory does not grow with N.
        """

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features to the probabilities of classes, [N, K], for the Inception score.

        Raises:
            ConfigError: if the network classifies nothing.
        """
        raise ConfigError(
            f"the feature network {self.name} gives no probabilities of classes",
            expected="one that classifies, such as inception-v3",
            fix="choose another feature network for this metric",
        )


class AbstractDistance(nn.Module, ABC):
    """A distance between images that follows what people see.

    Gradients with respect to images work, of first order; the weights have none.

    Attributes:
        name: how users call it, such as "lpips-vgg16".
        weights: name of the file of its weights.
        weights_sha256: that file's checksum, in lower case; empty for weights of no file.
        smallest: side of the smallest images that it takes, in pixels.
        largest: side to which a caller reduces larger images, in pixels, as the papers do.
    """

    name: str
    weights: str = ""
    weights_sha256: str = ""
    smallest: int = 1
    largest: int = 256
    _part = 2  # pairs at a time on a CPU

    @abstractmethod
    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield each layer's features, scaled so that squared differences add up to the distance.

        Args:
            images: float [N, C, H, W], nominally in [-1, 1] and not clamped; C is 1 or 3.

        Yields:
            float32 [N, ...], one for each layer, made when it is asked for.
        """

    def embed(self, images: Tensor) -> Tensor:
        """Map images to points whose squared Euclidean distance is the perceptual distance.

        Args:
            images: float [N, C, H, W], nominally in [-1, 1] and not clamped; C is 1 or 3.

        Returns:
            float32 [N, K]; K depends on the images' size, and may be millions.
        """
        return torch.cat([layer.flatten(1) for layer in self.layers(images)], dim=1)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, float32 [N], at most a layer of a few pairs in memory.

        Args:
            a: float [N, C, H, W], as `embed` takes them.
            b: the same shape.
        """
        if a.shape != b.shape:
            raise ValueError(f"distance takes pairs, got {list(a.shape)} and {list(b.shape)}")
        parts = zip(in_parts(a, self._part), in_parts(b, self._part), strict=True)
        return torch.cat([self._distance(*pair) for pair in parts])

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        layers = zip(self.layers(a), self.layers(b), strict=True)
        terms = [(x - y).square().flatten(1).sum(dim=1) for x, y in layers]
        return torch.stack(terms).sum(dim=0)


def in_parts(images: Tensor, num: int) -> tuple[Tensor, ...]:
    """Split [N, ...] into parts, which bounds what a network needs for them, whatever N is.

    Args:
        images: at least one part is returned, even where N is 0.
        num: images of a part on a CPU, where small parts are fast, as they stay in its cache;
            an accelerator takes 64.
    """
    return torch.split(images, num if images.device.type == "cpu" else 64)


def as_rgb(images: Tensor) -> Tensor:
    """Repeat grey [N, 1, H, W] to [N, 3, H, W]; RGB stays as it is.

    Raises:
        ValueError: if there are neither 1 nor 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"expected [N, 1 or 3, H, W], got {list(images.shape)}")
    return images.expand(-1, 3, -1, -1)


def as_rgb_bytes(images: Tensor) -> Tensor:
    """Check that images are uint8, and repeat grey to RGB.

    Raises:
        ValueError: if they are of another type or shape.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"a feature network takes uint8 images, got {images.dtype}")
    return as_rgb(images)


def resize_linear(images: Tensor, size: int | tuple[int, int], *, antialias: bool) -> Tensor:
    """Resize [N, C, H, W] to float32 bilinearly, pixels being areas (half-pixel centers).

    Args:
        images: any real type.
        size: height and width, or one number for both.
        antialias: widen the filter where the image gets smaller, so that no pixel is skipped.
    """
    return F.interpolate(
        images.to(torch.float32),
        size=size,
        mode="bilinear",
        align_corners=False,
        antialias=antialias,
    )


def unit_norm(features: Tensor) -> Tensor:
    """Divide [N, C, H, W] by its length over C at each place, as LPIPS does.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", section 3; the small constant is the published code's.
    """
    # Not a root of a sum, whose gradient at a place without any feature would be NaN.
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + 1e-10)


def fold_batch_norm(
    state: Mapping[str, Tensor], conv: str, norm: str, *, eps: float
) -> tuple[Tensor, Tensor]:
    """Join a convolution without bias and the batch normalization after it.

    Args:
        state: tensors by name.
        conv: name of the convolution.
        norm: name of the normalization.
        eps: what is added to the variance.

    Returns:
        weight and bias of the one convolution that does both, float32.

    Raises:
        KeyError: if a tensor is missing.
    """
    names = ("weight", "bias", "running_mean", "running_var")
    gain, bias, mean, variance = (state[f"{norm}.{name}"].double() for name in names)
    gain = gain / (variance + eps).sqrt()
    weight = state[f"{conv}.weight"].double() * gain[:, None, None, None]
    return weight.float(), (bias - mean * gain).float()


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network its weights, for use and not for training.

    Raises:
        WeightsError: if names or shapes are not those of the network.
    """
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(
            f"weights that do not fit {type(network).__name__} ({lines[-1].strip()[:200]})",
            expected="the published file",
            fix="take the published file",
        ) from error
    network.requires_grad_(False).eval()
