"""The distribution of w: samples, mean and standard deviation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.latent.render import map_batches
from stylegan.models.base import AbstractGenerator

_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class StyleStatistics:
    """Statistics of w before truncation.

    Attributes:
        mean: [w_dim], float32, on the generator's device.
        std: root mean square of the Euclidean distance to the mean, one number.
    """

    mean: Tensor
    std: float


def sample_styles(
    generator: AbstractGenerator, *, num: int = 10_000, seed: int = 123, c: Tensor | None = None
) -> Tensor:
    """Return w of `num` random latents, [num, w_dim], untruncated, on the generator's device.

    Source: the official projector, `RandomState(123).randn(10000, z_dim)`.

    Args:
        generator: in eval mode.
        num: number of samples.
        seed: of numpy's RandomState.
        c: one label for all, [c_dim]; None for a generator without labels.
    """
    z = torch.from_numpy(np.random.RandomState(seed).randn(num, generator.z_dim))
    batches = map_batches(generator, z.to(torch.float32), c=c, batch=_BATCH)
    return torch.cat([ws[:, 0] for ws in batches])


def style_statistics(
    generator: AbstractGenerator, *, num: int = 10_000, seed: int = 123, c: Tensor | None = None
) -> StyleStatistics:
    """Estimate the mean and standard deviation of w; arguments as of `sample_styles`.

    Source: Karras et al. 2020 (StyleGAN2), appendix D.
    """
    w = sample_styles(generator, num=num, seed=seed, c=c).double()
    mean = w.mean(dim=0)
    std = (w - mean).square().sum(dim=1).mean().sqrt().item()
    return StyleStatistics(mean=mean.float(), std=std)
