"""Mean and covariance of features that are never all in memory."""

import copy
from typing import Self

import torch
from torch import Tensor

BLOCK_ROWS = 1024


class Moments:
    """Count, mean and scatter of rows, in float64 on the CPU, updated as rows arrive.

    Memory is that of two matrices [D, D] and one block of rows, whatever the count: 100 MB
    for D = 2048. Rows are taken in blocks of 1024, counted from the first row, so the result
    is the same to the last bit however the rows are divided among calls of `update`.

    Blocks are joined by their means, not by sums of squares, and so nothing cancels: the
    official code's E[x x^T] - mu mu^T is the same number, and loses digits where the mean is
    large beside the deviation.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
    computing sample variances", equation 2.1b, in matrix form.

    Args:
        num_features: D, the width of the rows.
    """

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features
        self._count = 0
        self._mean = torch.zeros(num_features, dtype=torch.float64)
        self._scatter = torch.zeros(num_features, num_features, dtype=torch.float64)
        self._waiting = torch.empty(BLOCK_ROWS, num_features, dtype=torch.float64)
        self._num_waiting = 0

    @property
    def count(self) -> int:
        """How many rows there were."""
        return self._count + self._num_waiting

    @property
    def mean(self) -> Tensor:
        """The mean of the rows, float64 [D]; zeros before the first row."""
        return self._whole()._mean.clone()

    def covariance(self, *, unbiased: bool) -> Tensor:
        """Return the covariance of the rows, float64 [D, D], symmetric.

        Args:
            unbiased: divide by N - 1, instead of N.

        Raises:
            ValueError: if there are fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"a covariance takes at least 2 rows, got {self.count}")
        return self._whole()._scatter / (self.count - unbiased)

    def update(self, features: Tensor) -> None:
        """Take rows [n, D], of any dtype and on any device; none is fine.

        Raises:
            ValueError: if they are of another width.
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"features must be [n, {self.num_features}], got {list(features.shape)}"
            )
        rows = features.detach().cpu()
        while len(rows) > 0:
            room = BLOCK_ROWS - self._num_waiting
            part, rows = rows[:room], rows[room:]
            self._waiting[self._num_waiting : self._num_waiting + len(part)] = part
            self._num_waiting += len(part)
            if self._num_waiting == BLOCK_ROWS:
                self._fold()

    def tensors(self) -> dict[str, Tensor]:
        """Return `count` int64 [], `mean` float64 [D] and `scatter` float64 [D, D], as copies."""
        whole = self._whole()
        return {
            "count": torch.tensor(whole._count),
            "mean": whole._mean.clone(),
            "scatter": whole._scatter.clone(),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Rebuild what `tensors` gave; it can be updated further.

        Raises:
            ValueError: if one is missing, or their shapes or dtypes do not go together.
        """
        described = {
            name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(tensors.items())
        }
        width = tensors["mean"].numel() if "mean" in tensors else 0
        if described != {
            "count": (torch.int64, ()),
            "mean": (torch.float64, (width,)),
            "scatter": (torch.float64, (width, width)),
        }:
            raise ValueError(f"moments are count, mean and scatter, got {described}")
        moments = cls(width)
        moments._count = int(tensors["count"])
        moments._mean = tensors["mean"].clone()
        moments._scatter = tensors["scatter"].clone()
        return moments

    def _whole(self) -> Self:
        """Return moments with no waiting rows: itself, or a copy, lest blocks shift."""
        if self._num_waiting == 0:
            return self
        whole = copy.deepcopy(self)
        whole._fold()
        return whole

    def _fold(self) -> None:
        """Join the waiting rows."""
        if self._num_waiting == 0:
            return
        rows = self._waiting[: self._num_waiting]
        mean = rows.mean(dim=0)
        centered = rows - mean
        self._join(len(rows), mean, centered.T @ centered)
        self._num_waiting = 0

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self._count + count
        if count == 0:
            return
        step = mean - self._mean
        self._scatter += scatter
        self._scatter.addr_(step, step, alpha=self._count * count / total)
        self._mean += step * (count / total)
        self._count = total
