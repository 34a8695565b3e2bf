"""Improved precision and recall: which images lie within the other set's manifold."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.metrics.kernel import Features

BLOCK_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Shares from 0 to 1.

    Attributes:
        precision: of generated images within the manifold of the real ones: are they realistic.
        recall: of real images within the manifold of the generated ones: are all kinds made.
    """

    precision: float
    recall: float


def precision_recall(
    real: Features, fake: Features, *, k: int = 3, block: int = BLOCK_ROWS
) -> PrecisionRecall:
    """Estimate precision and recall by balls around the images, each as wide as its neighbourhood.

    A set's manifold is the union of balls around its members; a ball reaches its centre's k-th
    nearest other member, and has its border in it. Equal images are neighbours at distance 0.

    As in the official PyTorch code, features are rounded to float16, distances are Euclidean,
    float32, and radii are rounded to float16 (so the k-th neighbour itself may fall out by
    rounding). We differ where that code's float32 products cancel: ours are in float64, and
    pairs closer than their rounding error, such as equal rows, are at distance 0. The TensorFlow
    code rounds squared distances instead, which moves shares in the third decimal.

    Pairs are compared in blocks, which do not change the result. Memory is that of a few blocks,
    200 MB for D = 4096; rows may stay in a file.

    Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing
    Generative Models", section 2, equations 1 and 2.

    Args:
        real: features of real images, [N, D].
        fake: features of generated images, [M, D].
        k: which neighbour gives the radius; an image is not its own neighbour.
        block: rows on each side of a block.

    Raises:
        ValueError: if widths differ, or a set has no more than k rows, or features or distances
            are too large for float16.
    """
    if real.shape[1:] != fake.shape[1:] or not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"precision and recall take two sets of one width and more than k = {k} rows, "
            f"got {list(real.shape)} and {list(fake.shape)}"
        )
    real_radii = neighbour_radii(real, k=k, block=block)
    fake_radii = neighbour_radii(fake, k=k, block=block)
    real_inside = torch.zeros(len(real), dtype=torch.bool)
    fake_inside = torch.zeros(len(fake), dtype=torch.bool)
    for rows in _blocks(len(real), block):
        centres = _load(real, rows)
        for columns in _blocks(len(fake), block):
            distances = _distances(centres, _load(fake, columns))
            fake_inside[columns] |= (distances <= real_radii[rows, None]).any(dim=0)
            real_inside[rows] |= (distances <= fake_radii[columns]).any(dim=1)
    return PrecisionRecall(
        precision=float(fake_inside.double().mean()), recall=float(real_inside.double().mean())
    )


def neighbour_radii(features: Features, *, k: int, block: int = BLOCK_ROWS) -> Tensor:
    """Return the distance of each row's k-th nearest other row, float32 [N], rounded to float16.

    Args:
        features: [N, D], N above k.
        k: from 1.
        block: rows on each side of a block.

    Raises:
        ValueError: if features or distances are too large for float16.
    """
    # k + 1, as each row is at distance 0 from itself.
    nearest = torch.full((len(features), k + 1), torch.inf)
    for rows in _blocks(len(features), block):
        first = _load(features, rows)
        for columns in _blocks(len(features), block):
            if columns.start < rows.start:
                continue  # distances are symmetric: done when the two were exchanged
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
    # What remains of equal rows is rounding. Rows of float16 that differ are almost always
    # farther apart: one unit in the last place of a typical number is 30 times this bound.
    rounding = a.shape[1] * torch.finfo(torch.float64).eps
    squares.masked_fill_(squares <= sums.mul_(rounding), 0)
    return squares.sqrt_().float()


def _smallest(nearest: Tensor, distances: Tensor) -> Tensor:
    """Return the smallest of both in each row, as many as `nearest` has, in rising order."""
    width = nearest.shape[1]
    found = distances.topk(min(width, distances.shape[1]), dim=1, largest=False).values
    return torch.cat([nearest, found], dim=1).sort(dim=1).values[:, :width]
