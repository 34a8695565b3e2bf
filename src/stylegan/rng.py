"""The one owner of randomness: a stream is a function of its purpose and its place in the run."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Source = torch.Generator | Sequence[torch.Generator]
"""Where a batch's random numbers come from: a stream for all rows, or k of them, of which row n
reads number `n % k`."""


def generator_for(
    purpose: str, *, seed: int, nimg: int = 0, group: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a fresh generator that depends only on the arguments.

    Two purposes at the same step have separate streams, and a resumed run draws what the
    uninterrupted run would have drawn.

    Args:
        purpose: what the numbers are for, such as "latents" or "augment".
        seed: the run's seed.
        nimg: real images shown so far, over all processes.
        group: of the rows of a batch, where each has a stream of its own; 0 for the whole.
        device: where the generator lives. CPU and CUDA streams differ for equal seeds.
    """
    # hash() would do for integers, but it is salted per process for strings.
    key = f"{purpose}/{seed}/{nimg}/{group}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def randn_rows(shape: Sequence[int], source: Source | None, device: torch.device) -> Tensor:
    """Draw standard normal numbers for the rows of a batch.

    Args:
        shape: [N, ...]; N is a multiple of the number of streams.
        source: None takes torch's global stream.
        device: of the result.
    """
    if source is None or isinstance(source, torch.Generator):
        drawn_on = device if source is None else source.device
        return torch.randn(shape, generator=source, device=drawn_on).to(device)
    num, *rest = shape
    each = [num // len(source), *rest]
    columns = [torch.randn(each, generator=stream, device=stream.device) for stream in source]
    return torch.stack(columns, dim=1).flatten(0, 1).to(device)
