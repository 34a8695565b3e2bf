"""The one owner of randomness: a stream is a function of its purpose and its place in the run."""

import hashlib

import torch


def generator_for(
    purpose: str, *, seed: int, nimg: int = 0, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a fresh generator that depends only on the arguments.

    Two purposes at the same step have separate streams, and a resumed run draws what the
    uninterrupted run would have drawn.

    Args:
        purpose: what the numbers are for, such as "latents" or "augment".
        seed: the run's seed.
        nimg: real images shown so far, over all ranks.
        rank: leave at 0 for draws that every rank must agree on.
        device: where the generator lives. CPU and CUDA streams differ for equal seeds.
    """
    # hash() would do for integers, but it is salted per process for strings.
    key = f"{purpose}/{seed}/{nimg}/{rank}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
