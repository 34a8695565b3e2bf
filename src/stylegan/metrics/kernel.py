"""Kernel distance between two sets of features: the unbiased maximum mean discrepancy."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Features = Tensor | NDArray[np.floating[Any]]
"""Rows [N, D], float16 to float64; an array may be memory-mapped."""


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """The kernel distance, unscaled; publications often multiply it by 1e3.

    Attributes:
        value: 0 on average for two samples of one distribution, hence often negative then.
        error: standard error of `value` over the subsets: their standard deviation with divisor
            num_subsets - 1, divided by the square root of num_subsets. It covers the choice of
            subsets of these images, not the choice of images. None if there is no choice: for a
            single subset, or sets no larger than a subset.
    """

    value: float
    error: float | None


def kernel_distance(
    real: Features,
    fake: Features,
    *,
    generator: torch.Generator,
    num_subsets: int = 100,
    max_subset: int = 1000,
) -> KernelDistance:
    """Average the unbiased squared maximum mean discrepancy over random subsets.

    The kernel is (a . b / D + 1)^3. The rows of each subset are drawn without replacement. Only
    these rows are read, so a million rows in a file take no memory. Products are in float64, where
    the original has float32. The formula is the original's; the random subsets are not.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs", section 4; the number and size of
    subsets, and the minimum, from StyleGAN2-ADA.

    Args:
        real: features of real images.
        fake: features of generated images, of the same width.
        generator: random generator on the CPU for the subsets.
        num_subsets: number of random subsets.
        max_subset: rows of each subset, at most as many as the smaller set has.

    Raises:
        ValueError: if the widths differ, a set has fewer than two rows, or `num_subsets` < 1.
    """
    size = min(len(real), len(fake), max_subset)
    if real.shape[1:] != fake.shape[1:] or size < 2 or num_subsets < 1:
        raise ValueError(
            "kernel distances take two sets of at least 2 rows of one width and at least 1 "
            f"subset, got {list(real.shape)}, {list(fake.shape)} and {num_subsets}"
        )
    values = []
    for _ in range(num_subsets):
        rows = [_draw(features, size, generator) for features in (real, fake)]
        values.append(unbiased_discrepancy(*rows))
    mean = sum(values) / num_subsets
    squares = sum((value - mean) ** 2 for value in values)
    has_others = num_subsets > 1 and size < max(len(real), len(fake))
    error = math.sqrt(squares / (num_subsets - 1) / num_subsets) if has_others else None
    return KernelDistance(value=mean, error=error)


def unbiased_discrepancy(a: Tensor, b: Tensor) -> float:
    """Return the unbiased squared MMD of two sets of equal size, float64 [m, D]."""
    num, width = a.shape
    within = 0.0
    for rows in (a, b):
        kernel = _kernel(rows @ rows.T, width)
        within += float(kernel.sum() - kernel.trace())
    between = float(_kernel(a @ b.T, width).sum())
    return (within / (num - 1) - 2 * between / num) / num


def _kernel(products: Tensor, width: int) -> Tensor:
    return (products / width + 1) ** 3


def _draw(features: Features, size: int, generator: torch.Generator) -> Tensor:
    """Return `size` distinct random rows as float64 on the CPU."""
    # Sorted: files are read faster forwards, and the sums do not depend on the order.
    index = torch.randperm(len(features), generator=generator)[:size].sort().values
    if isinstance(features, Tensor):
        return features[index.to(features.device)].cpu().double()
    return torch.from_numpy(np.asarray(features[index.numpy()], dtype=np.float64))
