"""Improved precision and recall: the images that lie within the manifold of the other set."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.metrics.kernel import Features

BLOCK_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Fractions from 0 to 1.

    Attributes:
        precision: fraction of generated images within the manifold of the real ones (realism).
        recall: fraction of real images within the manifold of the generated ones (variety).
    """

    precision: float
    recall: float


def precision_recall(
    real: Features, fake: Features, *, k: int = 3, block: int = BLOCK_ROWS
) -> PrecisionRecall:
    """Estimate precision and recall with k-NN balls around the features of each set.

    The manifold of a set is the union of closed balls around its members. The radius of a ball is
    the distance to the k-th nearest other member. Equal images are neighbors at distance 0.

    As in the official PyTorch code, features are rounded to float16, distances are Euclidean in
    float32, and radii are rounded to float16, so rounding may exclude the k-th neighbor itself.
    Matrix products are in float64 here, where float32 products of that code cancel; pairs closer
    than the rounding error, such as equal rows, are at distance 0. The TensorFlow code rounds
    squared distances instead, which changes the fractions in the third decimal.

    Pairs are compared in blocks, which does not change the result. Memory is that of a few blocks,
    200 MB for D = 4096; rows may stay in a file. (scikit-learn's nearest neighbors would hold all
    features in memory, and round differently.)

    Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing
    Generative Models", section 2, equations 1 and 2.

    Args:
        real: features of real images, [N, D].
        fake: features of generated images, [M, D].
        k: index of the neighbor that gives the radius; an image is not its own neighbor.
        block: rows on each side of a block.

    Raises:
        ValueError: if widths differ, a set has k rows or fewer, or features or distances overflow
            float16.
    """
    if real.shape[1:] != fake.shape[1:] or not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"precision and recall take two sets of one width and more than k = {k} rows, "
            f"got {list(real.shape)} and {list(fake.shape)}"
        )
    real_radii = knn_radii(real, k=k, block=block)
    fake_radii = knn_radii(fake, k=k, block=block)
    real_inside = torch.zeros(len(real), dtype=torch.bool)
    fake_inside = torch.zeros(len(fake), dtype=torch.bool)
    for rows in _blocks(len(real), block):
        centers = _load(real, rows)
        for columns in _blocks(len(fake), block):
            distances = _distances(centers, _load(fake, columns))
            fake_inside[columns] |= (distances <= real_radii[rows, None]).any(dim=0)
            real_inside[rows] |= (distances <= fake_radii[columns]).any(dim=1)
    return PrecisionRecall(
        precision=float(fake_inside.double().mean()), recall=float(real_inside.double().mean())
    )


def knn_radii(features: Features, *, k: int, block: int = BLOCK_ROWS) -> Tensor:
    """Return the distance of each row's k-th nearest other row, float32 [N], rounded to float16.

    Args:
        features: [N, D], N > k.
        k: 1 or more.
        block: rows on each side of a block.

    Raises:
        ValueError: if features or distances are too large for float16.
    """
    # k + 1, since each row is at distance 0 from itself.
    nearest = torch.full((len(features), k + 1), torch.inf)
    for rows in _blocks(len(features), block):
        first = _load(features, rows)
        for columns in _blocks(len(features), block):
            if columns.start < rows.start:
                continue  # distances are symmetric: already computed with the blocks exchanged
            distances = _distances(first, _load(features, columns))
            nearest[rows] = _smallest(nearest[rows], distances)
            if columns.start > rows.start:
                nearest[columns] = _smallest(nearest[columns], distances.T)
    radii = nearest[:, k].half().float()
    if not radii.isfinite().all():
        raise ValueError("distances between features are too large for float16")
    return radii


def _blocks(num: int, size: int) -> Iterator[slice]:
    for start in range(0, num, size):
        yield slice(start, min(start + size, num))


def _load(features: Features, rows: slice) -> Tensor:
    """Return rows, rounded to float16, as float64 on the CPU."""
    part = features[rows]
    tensor = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    rounded = tensor.cpu().half().double()
    if not rounded.isfinite().all():
        raise ValueError("features are too large for float16")
    return rounded


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances of float64 rows, float32 [len(a), len(b)]."""
    sums = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    squares = torch.addmm(sums, a, b.T, alpha=-2)
    # For equal rows only rounding errors remain. Different float16 rows are almost always farther
    # apart: one unit in the last place of a typical number is 30 times this bound.
    rounding = a.shape[1] * torch.finfo(torch.float64).eps
    squares.masked_fill_(squares <= sums.mul_(rounding), 0)
    return squares.sqrt_().float()


def _smallest(nearest: Tensor, distances: Tensor) -> Tensor:
    """Return the smallest values of both in each row, as many as `nearest` has, ascending."""
    width = nearest.shape[1]
    smallest = distances.topk(min(width, distances.shape[1]), dim=1, largest=False).values
    return torch.cat([nearest, smallest], dim=1).sort(dim=1).values[:, :width]
