"""Latents from seeds, as the official code draws them."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stylegan.errors import ConfigError

MAX_SEED = 2**32 - 1  # RandomState takes 32 bits
MAX_SEEDS = 1_000_000  # a longer range is almost certainly a typing error


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
    """Parse seeds such as `"0-63,100"`; a range includes both ends, and the order is kept.

    Raises:
        ConfigError: if the text is anything else, or a range is descending.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        if match is None:
            raise ConfigError(
                f"{part.strip()!r} in seeds {text!r} is not a number or a range of numbers",
                fix='write them like "0-63,100"',
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ConfigError(f"the range {part.strip()} in seeds {text!r} runs backwards")
        check_seed(last)
        if len(seeds) + last - first + 1 > MAX_SEEDS:
            raise ConfigError(f"seeds {text!r} are more than {MAX_SEEDS:,}")
        seeds.extend(range(first, last + 1))
    return seeds


def check_seed(seed: int) -> None:
    """Raise ConfigError unless a seed is one of numpy's RandomState."""
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seeds must be from 0 to {MAX_SEED}, got {seed}")
