"""A batch in parts: for the processes that share it, and for what fits in memory at once.

Rows go in groups that must not be torn, as those of the minibatch standard deviation: of a batch
of N rows in groups of `group`, group g of M = N / group has the rows g, g + M, g + 2M... A part
is some neighbouring groups. Its own rows, in its own order, are strided in the same way, so what
looks at groups sees the same ones in the part and in the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.rng import generator_for


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of the groups from `first` to below `last` of a batch.

    Attributes:
        num: rows of the whole batch, a multiple of `group`.
        group: rows of a group.
        first: number of the first group.
        last: number of the last one, plus 1.
    """

    num: int
    group: int
    first: int
    last: int

    @classmethod
    def whole(cls, num: int, *, group: int = 1) -> "Part":
        """Return the part that is all of a batch.

        Raises:
            ValueError: if the batch has no whole number of groups.
        """
        if group < 1 or num % group:
            raise ValueError(f"a batch of {num} has no whole number of groups of {group}")
        return cls(num=num, group=group, first=0, last=num // group)

    def __len__(self) -> int:
        """Return the number of rows."""
        return (self.last - self.first) * self.group

    @property
    def share(self) -> float:
        """Rows of the part over those of the batch."""
        return len(self) / self.num

    @property
    def rows(self) -> list[int]:
        """Numbers of the rows, in the order in which the part has them."""
        num_groups = self.num // self.group
        return [
            member * num_groups + group
            for member in range(self.group)
            for group in range(self.first, self.last)
        ]

    def take(self, batch: Tensor) -> Tensor:
        """Return the part's rows of a whole batch [N, ...].

        Raises:
            ValueError: if that is another number of rows.
        """
        if len(batch) != self.num:
            raise ValueError(f"a part of {self.num} rows cannot be taken of {len(batch)}")
        if len(self) == self.num:
            return batch
        grouped = batch.reshape(self.group, -1, *batch.shape[1:])
        return grouped[:, self.first : self.last].flatten(0, 1)

    def among(self, number: int, of: int) -> "Part":
        """Return the share of one of `of` workers, sizes differing by a group at most."""
        num_groups = self.last - self.first
        first, last = (self.first + num_groups * each // of for each in (number, number + 1))
        return Part(num=self.num, group=self.group, first=first, last=last)

    def pieces(self, most: int | None) -> list["Part"]:
        """Cut the part to the fewest pieces of about one size, of at most `most` rows each.

        None makes one piece. A piece has a group at least.
        """
        num_groups = self.last - self.first
        num = 1 if most is None else -(-num_groups // max(most // self.group, 1))
        return [self.among(number, of=num) for number in range(num)]

    def within(self, outer: "Part") -> "Part":
        """Return the same rows, counted among those of a part that has them."""
        return Part(
            num=len(outer),
            group=self.group,
            first=self.first - outer.first,
            last=self.last - outer.first,
        )


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Random streams of a part's rows, one a group: no matter how a batch is cut, it is the same.

    Attributes:
        purpose: as of `generator_for`.
        seed: likewise.
        nimg: likewise.
        device: likewise.
        part: which rows.
    """

    purpose: str
    seed: int
    nimg: int
    device: torch.device
    part: Part

    def __iter__(self) -> Iterator[torch.Generator]:
        """Yield the streams from their beginnings."""
        for group in range(self.part.first, self.part.last):
            yield generator_for(
                self.purpose, seed=self.seed, nimg=self.nimg, group=group, device=self.device
            )
