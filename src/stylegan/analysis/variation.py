"""The effect of noise on the image.

Source: Karras et al. 2019 (StyleGAN), section 3.2 and figures 4 and 5.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps, synthesize
from stylegan.rng import generator_for

Group = Literal["all", "none", "fine", "coarse"]
GROUPS: tuple[Group, ...] = ("all", "none", "fine", "coarse")
FINE_SIDE = 64  # noise of this nominal resolution and above is fine in the paper
DISPLAY_GAIN = 4  # factor for displayed stds, as in the paper


def fine_from(size: ImageSize) -> ImageSize:
    """Return the smallest size of fine noise for images of a size.

    64x64 for images of 512x512 and above, as in the paper; the upper half of the blocks for smaller
    images.
    """
    half = math.ceil((math.log2(4) + math.log2(size.nominal)) / 2)
    return size.at(int(min(FINE_SIDE, 2**half)))


def layers_of(generator: AbstractGenerator, group: Group) -> list[str]:
    """Return the layers of a group that have noise, coarsest first.

    Raises:
        ConfigError: if the generator has no noise inputs.
    """
    stored = noise_maps(generator)
    if not stored:
        raise ConfigError(
            "a network without noise inputs; StyleGAN E and F and StyleGAN2 have them"
        )
    border = fine_from(generator.img_size).width
    if group == "all":
        return list(stored)
    if group == "none":
        return []
    return [
        layer for layer, each in stored.items() if (each.shape[-1] >= border) == (group == "fine")
    ]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """The variation of an image with noise.

    Attributes:
        mean: mean over realizations, [C, H, W], nominally in [-1, 1]; other channels than grey and
            RGB as of `PixelFormat.as_rgb`.
        deviation: std over realizations of the mean of the color channels, [H, W]; 1 is the range
            from black to white.
    """

    mean: Tensor
    deviation: Tensor


def with_noise_of(generator: AbstractGenerator, ws: Tensor, group: Group) -> Tensor:
    """Render images with the stored noise in a group of layers and no noise in the others.

    Source: figure 5 of the paper.

    Args:
        generator: in eval mode.
        ws: [N, num_ws, w_dim], on its device.
        group: the group of layers.

    Returns:
        [N, C, H, W], nominally in [-1, 1].
    """
    kept = set(layers_of(generator, group))
    noise = {
        layer: stored if layer in kept else torch.zeros_like(stored)
        for layer, stored in noise_maps(generator).items()
    }
    with torch.no_grad():
        return synthesize(generator, ws, noise=noise)


def variation(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    num: int = 100,
    group: Group = "all",
    seed: int = 0,
    batch: int = 8,
) -> Variation:
    """Measure the variation of one image over realizations of noise.

    Source: figure 4 of the paper: 100 realizations.

    Args:
        generator: in eval mode.
        ws: [1, num_ws, w_dim], on its device.
        num: number of realizations, at least 2.
        group: layers with varying noise; the others have none.
        seed: seed of the noise.
        batch: batch size.
    """
    varied = set(layers_of(generator, group))
    stored = noise_maps(generator)
    zero = torch.zeros((), dtype=torch.float64)
    mean, gray_mean, gray_square = zero, zero, zero
    for start in range(0, num, batch):
        indices = range(start, min(start + batch, num))
        noise = {
            layer: torch.stack([_drawn(layer, each, seed, index) for index in indices])
            if layer in varied
            else torch.zeros_like(each)
            for layer, each in stored.items()
        }
        with torch.no_grad():
            images = synthesize(generator, ws.expand(len(indices), -1, -1), noise=noise)
        images = generator.pixels.flat(images).clamp(-1, 1).double().cpu()
        gray = images.mean(dim=1) / 2  # black to white is 1
        mean = mean + images.sum(dim=0) / num
        gray_mean = gray_mean + gray.sum(dim=0) / num
        gray_square = gray_square + gray.square().sum(dim=0) / num
    variance = (gray_square - gray_mean.square()) * num / (num - 1)
    return Variation(mean=mean.float(), deviation=variance.clamp_min(0).sqrt().float())


def _drawn(layer: str, like: Tensor, seed: int, index: int) -> Tensor:
    stream = generator_for(f"variation/{layer}", seed=seed, nimg=index)
    return torch.randn([1, *like.shape], generator=stream).to(like.device)
