"""Latents from seeds, by the convention that people arrive with."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stylegan.errors import ConfigError

MAX_SEED = 2**32 - 1  # RandomState takes 32 bits
MAX_SEEDS = 1_000_000  # more than this in one line is a slip of the finger


def latents_from_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Draw one z for each seed: float32 [N, z_dim], on the CPU.

    A seed gives the same z in every implementation of StyleGAN, and on every device.

    Source: the official code of all three papers, `RandomState(seed).randn(1, z_dim)`.

    Args:
        seeds: each in 0..2**32 - 1.
        z_dim: the generator's `z_dim`.
    """
    rows = [np.random.RandomState(seed).randn(1, z_dim) for seed in seeds]
    return torch.from_numpy(np.concatenate([np.empty((0, z_dim)), *rows])).to(torch.float32)


def parse_seeds(text: str) -> list[int]:
    """Read seeds such as `"0-63,100"`; a range holds both its ends, the order is kept.

    Raises:
        ConfigError: if the text is anything else, or a range runs backwards.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        if match is None:
            raise _error(text, f"a part that reads {part.strip()!r}")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise _error(text, f"a range that runs backwards, {part.strip()}")
        if last > MAX_SEED:
            raise _error(text, f"a seed above {MAX_SEED}")
        if len(seeds) + last - first + 1 > MAX_SEEDS:
            raise _error(text, f"more than {MAX_SEEDS:,} seeds")
        seeds.extend(range(first, last + 1))
    return seeds


def _error(text: str, problem: str) -> ConfigError:
    return ConfigError(
        f"seeds {text!r} have {problem}",
        expected=f"numbers from 0 to {MAX_SEED} and ranges of them",
        fix='write them like "0-63,100"',
    )
