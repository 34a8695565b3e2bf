"""Inception score: high if each image is of one class, and all classes occur."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class InceptionScore:
    """Mean and standard deviation of the score over the splits.

    Attributes:
        mean: from 1, if all images have the same class probabilities, to the number of classes.
        std: standard deviation over the splits, with their number as divisor.
    """

    mean: float
    std: float


def inception_score(probabilities: Tensor, *, num_splits: int = 10) -> InceptionScore:
    """Return exp of the mean KL divergence between the classes of an image and those of its split.

    Splits are contiguous; split i begins at row floor(i N / num_splits), as in the original. Sums
    are in float64, where the original has float32, and p log p is 0 for p = 0, where the original
    gives NaN.

    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.

    Args:
        probabilities: class probabilities of each image, float [N, K], in the order of generation;
            rows sum to 1.
        num_splits: number of contiguous splits, whose scores are averaged.

    Raises:
        ValueError: if there are fewer images than splits.
    """
    num = len(probabilities)
    if not 1 <= num_splits <= num:
        raise ValueError(f"num_splits must be from 1 to {num}, the images, got {num_splits}")
    scores = []
    for split in range(num_splits):
        rows = probabilities[split * num // num_splits : (split + 1) * num // num_splits].double()
        mean = rows.mean(dim=0)
        entropy_of_mean = -torch.xlogy(mean, mean).sum()
        mean_entropy = -torch.xlogy(rows, rows).sum(dim=1).mean()
        scores.append(math.exp(entropy_of_mean - mean_entropy))
    average = sum(scores) / num_splits
    variance = sum((score - average) ** 2 for score in scores) / num_splits
    return InceptionScore(mean=average, std=math.sqrt(variance))
