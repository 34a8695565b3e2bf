"""Slices of a batch: the shard of a rank, and the micro-batches that fit in memory.

Groups of rows, such as those of minibatch std, are never split across ranks or micro-batches. In
a batch of N rows with groups of `group_size`, group g of M = N / group_size holds the rows g,
g + M, g + 2M... A slice consists of consecutive groups. Its rows keep their order, so they are
strided in the same way, and a layer that works on groups finds the same groups in a slice as in
the whole batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.rng import generator_for


@dataclass(frozen=True, kw_only=True)
class BatchSlice:
    """The rows of some consecutive groups of a batch.

    Attributes:
        batch_size: rows of the whole batch, a multiple of `group_size`.
        group_size: rows of a group.
        first_group: index of the first group.
        end_group: index of the last group, plus 1.
    """

    batch_size: int
    group_size: int
    first_group: int
    end_group: int

    @classmethod
    def whole(cls, batch_size: int, *, group_size: int = 1) -> "BatchSlice":
        """Return the slice that is the whole batch.

        Raises:
            ValueError: if the batch is not a whole number of groups.
        """
        if group_size < 1 or batch_size % group_size:
            raise ValueError(f"a batch of {batch_size} is not a multiple of groups of {group_size}")
        return cls(
            batch_size=batch_size,
            group_size=group_size,
            first_group=0,
            end_group=batch_size // group_size,
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return (self.end_group - self.first_group) * self.group_size

    @property
    def fraction(self) -> float:
        """Rows of the slice divided by those of the batch."""
        return len(self) / self.batch_size

    @property
    def rows(self) -> list[int]:
        """Indices of the rows in the batch, in the order in which the slice holds them."""
        num_groups = self.batch_size // self.group_size
        return [
            member * num_groups + group
            for member in range(self.group_size)
            for group in range(self.first_group, self.end_group)
        ]

    def take(self, batch: Tensor) -> Tensor:
        """Return the slice's rows of a whole batch [N, ...].

        Raises:
            ValueError: if the batch does not have `batch_size` rows.
        """
        if len(batch) != self.batch_size:
            raise ValueError(f"a slice of a batch of {self.batch_size} got {len(batch)} rows")
        if len(self) == self.batch_size:
            return batch
        grouped = batch.reshape(self.group_size, -1, *batch.shape[1:])
        return grouped[:, self.first_group : self.end_group].flatten(0, 1)

    def shard(self, rank: int, *, world_size: int) -> "BatchSlice":
        """Return the shard of a rank. The sizes of shards differ by at most one group."""
        num_groups = self.end_group - self.first_group
        first, end = (
            self.first_group + num_groups * index // world_size for index in (rank, rank + 1)
        )
        return BatchSlice(
            batch_size=self.batch_size, group_size=self.group_size, first_group=first, end_group=end
        )

    def micro_batches(self, max_size: int | None) -> list["BatchSlice"]:
        """Split into the fewest micro-batches of similar size with at most `max_size` rows each.

        None: one micro-batch. Each micro-batch holds at least one group.
        """
        if max_size is None:
            return [self]
        num_groups = self.end_group - self.first_group
        num = -(-num_groups // max(max_size // self.group_size, 1))
        return [self.shard(index, world_size=num) for index in range(num)]

    def relative_to(self, outer: "BatchSlice") -> "BatchSlice":
        """Return the same rows as a slice of `outer`, which contains them."""
        return BatchSlice(
            batch_size=len(outer),
            group_size=self.group_size,
            first_group=self.first_group - outer.first_group,
            end_group=self.end_group - outer.first_group,
        )


@dataclass(frozen=True, kw_only=True)
class GroupGenerators:
    """One random generator per group of a slice, so that draws do not depend on the slicing.

    Iterating yields new generators, each at the start of its stream.

    Attributes:
        purpose: as in `generator_for`.
        seed: as in `generator_for`.
        nimg: as in `generator_for`.
        device: as in `generator_for`.
        rows: the slice.
    """

    purpose: str
    seed: int
    nimg: int
    device: torch.device
    rows: BatchSlice

    def __iter__(self) -> Iterator[torch.Generator]:
        """Yield the generators of the slice's groups."""
        for group in range(self.rows.first_group, self.rows.end_group):
            yield generator_for(
                self.purpose, seed=self.seed, nimg=self.nimg, group=group, device=self.device
            )
