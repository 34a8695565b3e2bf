"""The order in which images are shown: a function of seed and epoch, entered at any position."""

from collections.abc import Iterator

import torch

from stylegan.rng import generator_for


class InfiniteSampler(Iterator[int]):
    """Endless indices of a set, each once per epoch, in an order of its own in each epoch.

    The order of an epoch depends on `num_items`, `seed` and the epoch's number only. So a
    sampler started at n goes on exactly as one that was started at 0 and has given n indices.

    Args:
        num_items: size of the set.
        seed: the run's seed.
        start: how many indices were drawn before, over all epochs.

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
        """Return the index at the current position, and move on."""
        epoch, offset = divmod(self.position, self.num_items)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        self.position += 1
        return int(self._order[offset])

    def _permutation(self, epoch: int) -> torch.Tensor:
        generator = generator_for("data order", seed=self.seed, nimg=epoch * self.num_items)
        return torch.randperm(self.num_items, generator=generator)
