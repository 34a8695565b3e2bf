"""Choices of test cases from a grid of parameters."""

from collections.abc import Sequence
from itertools import combinations, product

import pytest
import torch
from _pytest.mark.structures import ParameterSet


def pairwise(*factors: Sequence[object]) -> list[tuple[object, ...]]:
    """Choose rows of a grid in which any two values of different factors occur together."""
    rows = list(product(*(range(len(factor)) for factor in factors)))
    pairs = {row: set(combinations(enumerate(row), 2)) for row in rows}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        row = max(rows, key=lambda row: len(pairs[row] & missing))
        missing -= pairs[row]
        chosen.append(row)
    return [
        tuple(factor[index] for factor, index in zip(factors, row, strict=True))
        for row in sorted(chosen)
    ]


def grid(*factors: Sequence[object]) -> list[ParameterSet]:
    """Return the whole grid, in which what a pairwise choice leaves out is marked slow."""
    chosen = pairwise(*factors)
    return [
        pytest.param(*row, marks=() if row in chosen else pytest.mark.slow)
        for row in product(*factors)
    ]


def in_turn(*factors: Sequence[object]) -> list[ParameterSet]:
    """Return the whole grid of two factors; all but one case for each of the first are slow.

    The values of the second take turns.
    """
    first, second = factors
    return [
        pytest.param(one, two, marks=() if i % len(second) == j else pytest.mark.slow)
        for (i, one), (j, two) in product(enumerate(first), enumerate(second))
    ]


def kernel_grid(*factors: Sequence[object]) -> list[ParameterSet]:
    """Return the whole grid on a GPU, and `grid` for Triton's interpreter, which is slow."""
    if torch.cuda.is_available():
        return [pytest.param(*row) for row in product(*factors)]
    return grid(*factors)
