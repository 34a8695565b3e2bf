"""The feature space in which path lengths are measured, if it is not that of pixels."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan import distributed
from stylegan.errors import ConfigError
from stylegan.losses.objective import LossConfig, PathSpace
from stylegan.perceptual.detector import AbstractDistance
from stylegan.perceptual.networks import load_distance
from stylegan.pixel_format import PixelFormat

DISTANCES: dict[PathSpace, str] = {
    "lpips": "lpips-vgg16",
    "efficientnet-lite0": "efficientnet-lite0",
}
NUM_IMAGES = 64
"""Real images that the scale is computed from."""
_STEP = 0.01  # of the finite difference, as a fraction of the way to another image


class PathFeatures:
    """Features of images whose path lengths are comparable with those of pixels.

    The features F are those of a perceptual distance, `d(x, x') = |F(x) - F(x')|^2`. They are
    multiplied by a constant, such that a small step from one real image towards another is, in the
    root mean square, as long as in pixels (`|x - x'| / sqrt(H * W)`, the norm of StyleGAN2's path
    lengths). Weight and running mean of the regularization then mean the same in both spaces.

    Args:
        network: the perceptual distance.

    Attributes:
        scale: the constant; 1 until `calibrate` is called.
        pixels: what the channels of images are; the network sees them by `AbstractDistance.view`.
            None for grey and RGB.
    """

    def __init__(self, network: AbstractDistance) -> None:
        self._network = network
        self.scale = 1.0
        self.pixels: PixelFormat | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1] to features [N, K], twice differentiable.

        Images above the network's largest size are reduced to it by averaging pixels.
        """
        return self._features(images) * self.scale

    def _features(self, images: Tensor) -> Tensor:
        if self.pixels is not None:
            images = self._network.view(images, self.pixels)
        factor = -(-max(images.shape[2:]) // self._network.largest)
        return self._network.embed(F.avg_pool2d(images, factor) if factor > 1 else images)

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Compute the scale from real images [N, C, H, W] in [-1, 1], at least two different ones.

        Each image is compared with the next one. The result is the mean over all ranks.

        Raises:
            ConfigError: if the features of all images are equal.
        """
        num_pixels = images.shape[2] * images.shape[3]
        in_pixels = in_features = 0.0
        for image, other in zip(images, images.roll(-1, dims=0), strict=True):
            direction = other - image
            ends = torch.stack([image - _STEP * direction, image + _STEP * direction])
            before, after = self._features(ends)
            in_pixels += float(direction.square().sum()) / num_pixels
            in_features += float((after - before).square().sum()) / (2 * _STEP) ** 2
        if in_features == 0:
            raise ConfigError("--pl-space needs a feature network that can tell the images apart")
        scale = torch.tensor((in_pixels / in_features) ** 0.5 / distributed.world_size())
        (total,) = distributed.all_reduce_sum([scale.to(images.device)])
        self.scale = float(total)


def load_path_features(
    config: LossConfig, *, weights_dir: str | Path | None, device: torch.device
) -> PathFeatures | None:
    """Return the feature space of a run, not calibrated; None for pixels.

    Raises:
        WeightsError: if the weights can neither be found nor downloaded.
    """
    if config.pl_space == "pixels" or config.pl_weight == 0:
        return None
    name = DISTANCES[config.pl_space]
    return PathFeatures(load_distance(name, weights_dir=weights_dir, device=device))
