"""The order in which images are shown, which can be entered at any position."""

from collections.abc import Iterator

import torch

from stylegan.rng import generator_for


class InfiniteSampler(Iterator[int]):
    """Infinite stream of indices: each index once per epoch, in a new random order.

    The order of an epoch depends only on `num_items`, `seed` and the number of the epoch. So a
    sampler that starts at n continues exactly one that has drawn n indices.

    Args:
        num_items: size of the set.
        seed: the run's seed.
        start: number of indices drawn before, over all epochs.

    Raises:
        ValueError: if the set is empty or `start` negative.
    """

    def __init__(self, num_items: int, *, seed: int, start: int = 0) -> None:
        if num_items < 1:
            raise ValueError(f"num_items must be positive, got {num_items}")
        if start < 0:
            raise ValueError(f"start must not be negative, got {start}")
        self.num_items = num_items
        self.seed = seed
        self.position = start
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __next__(self) -> int:
        """Return the next index."""
        epoch, offset = divmod(self.position, self.num_items)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        self.position += 1
        return int(self._order[offset])

    def _permutation(self, epoch: int) -> torch.Tensor:
        generator = generator_for("data order", seed=self.seed, nimg=epoch * self.num_items)
        return torch.randperm(self.num_items, generator=generator)
