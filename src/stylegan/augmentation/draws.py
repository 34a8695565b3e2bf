"""Random numbers of augmentation, one for each image of a batch, or fixed quantiles of them."""

import math
from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """A source of numbers for a batch of N images; all are float64 on the CPU."""

    def uniform(self, low: float, high: float, *, num: int = 1) -> Tensor:
        """Return numbers from `low` to `high`, [N, num]."""

    def normal(self, std: float, *, num: int = 1) -> Tensor:
        """Return normal numbers of mean 0, [N, num]."""

    def integers(self, num_values: int) -> Tensor:
        """Return integers from 0 to below `num_values`, [N, 1]."""

    def chance(self, probability: float) -> Tensor:
        """Return True with a probability, [N, 1]."""


class RandomDraws:
    """Draws from a generator.

    Args:
        batch: N.
        generator: on the CPU.
    """

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self._batch, self._generator = batch, generator

    def uniform(self, low: float, high: float, *, num: int = 1) -> Tensor:
        """Return numbers from `low` to `high`, [N, num]."""
        shape = [self._batch, num]
        numbers = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        return low + (high - low) * numbers

    def normal(self, std: float, *, num: int = 1) -> Tensor:
        """Return normal numbers of mean 0, [N, num]."""
        shape = [self._batch, num]
        return std * torch.randn(shape, generator=self._generator, dtype=torch.float64)

    def integers(self, num_values: int) -> Tensor:
        """Return integers from 0 to below `num_values`, [N, 1]."""
        return self.uniform(0, num_values).floor()

    def chance(self, probability: float) -> Tensor:
        """Return True with a probability, [N, 1]."""
        return self.uniform(0, 1) < probability


class QuantileDraws:
    """Draws a fixed value that grows with q, and applies every transform.

    For normal numbers it is `std * erfinv(2q - 1)`, which is not their quantile, but what the
    reference implementation takes in its tests.

    Args:
        batch: N.
        quantile: q, from 0 to 1.
    """

    def __init__(self, batch: int, quantile: float) -> None:
        self._batch, self._quantile = batch, quantile

    def uniform(self, low: float, high: float, *, num: int = 1) -> Tensor:
        """Return `low + (high - low) * q`, [N, num]."""
        value = low + (high - low) * self._quantile
        return torch.full([self._batch, num], value, dtype=torch.float64)

    def normal(self, std: float, *, num: int = 1) -> Tensor:
        """Return `std * erfinv(2q - 1)`, [N, num]."""
        quantile = torch.tensor(2 * self._quantile - 1, dtype=torch.float64)
        return torch.erfinv(quantile).mul(std).expand(self._batch, num)

    def integers(self, num_values: int) -> Tensor:
        """Return `floor(num_values * q)`, [N, 1]."""
        value = float(math.floor(num_values * self._quantile))
        return torch.full([self._batch, 1], value, dtype=torch.float64)

    def chance(self, probability: float) -> Tensor:
        """Return True, [N, 1]."""
        return torch.ones([self._batch, 1], dtype=torch.bool)
