"""Where the styles of a generator lie: their mean, and how far they spread around it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.models.base import AbstractGenerator

_BLOCK = 1000  # latents mapped at once


@dataclass(frozen=True, kw_only=True)
class StyleStatistics:
    """Statistics of w before truncation.

    Attributes:
        mean: [w_dim], float32, on the generator's device.
        deviation: root mean square of the Euclidean distance to the mean, one number.
    """

    mean: Tensor
    deviation: float


def sample_styles(
    generator: AbstractGenerator, *, num: int = 10_000, seed: int = 123, c: Tensor | None = None
) -> Tensor:
    """Map `num` latents to w, [num, w_dim], without truncation, on the generator's device.

    Source: the official projector, `RandomState(123).randn(10000, z_dim)`.

    Args:
        generator: in eval mode.
        num: how many.
        seed: of numpy's RandomState.
        c: one label for all, [c_dim]; None where the generator takes none.
    """
    device = next(generator.parameters()).device
    z = np.random.RandomState(seed).randn(num, generator.z_dim)
    label = None if c is None else c.to(device)
    with torch.no_grad():
        blocks = [
            generator.mapping(
                block.to(device), None if label is None else label.expand(len(block), -1)
            )[:, 0]
            for block in torch.split(torch.from_numpy(z).to(torch.float32), _BLOCK)
        ]
    return torch.cat(blocks)


def style_statistics(
    generator: AbstractGenerator, *, num: int = 10_000, seed: int = 123, c: Tensor | None = None
) -> StyleStatistics:
    """Measure mean and spread of w; arguments as of `sample_styles`.

    Source: Karras et al. 2020 (StyleGAN2), appendix D.
    """
    w = sample_styles(generator, num=num, seed=seed, c=c).double()
    mean = w.mean(dim=0)
    deviation = (w - mean).square().sum(dim=1).mean().sqrt().item()
    return StyleStatistics(mean=mean.float(), deviation=deviation)
