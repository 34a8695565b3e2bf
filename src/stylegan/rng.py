"""Random generators that depend only on their purpose and the position in the run."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Source = torch.Generator | Sequence[torch.Generator]
"""The source of a batch's random numbers: one generator for all rows, or k generators, where row n
uses generator `n % k`."""


def generator_for(
    purpose: str, *, seed: int, nimg: int = 0, group: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a fresh generator that depends only on the arguments.

    Two purposes at the same step have separate streams, and a resumed run draws what the
    uninterrupted run would have drawn.

    Args:
        purpose: what the numbers are for, such as "latents" or "augment".
        seed: the run's seed.
        nimg: real images shown so far, over all ranks.
        group: index of a group of rows, if each has a generator of its own; 0 for all rows.
        device: where the generator lives. CPU and CUDA streams differ for equal seeds.
    """
    # hash() would do for integers, but it is salted per process for strings.
    key = f"{purpose}/{seed}/{nimg}/{group}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def randn_rows(shape: Sequence[int], source: Source | None, device: torch.device) -> Tensor:
    """Draw standard normal numbers for the rows of a batch.

    Args:
        shape: [N, ...], with N a multiple of the number of generators.
        source: None uses torch's global generator.
        device: device of the result.
    """
    if source is None or isinstance(source, torch.Generator):
        source_device = device if source is None else source.device
        return torch.randn(shape, generator=source, device=source_device).to(device)
    num, *rest = shape
    size = [num // len(source), *rest]
    columns = [torch.randn(size, generator=each, device=each.device) for each in source]
    return torch.stack(columns, dim=1).flatten(0, 1).to(device)
