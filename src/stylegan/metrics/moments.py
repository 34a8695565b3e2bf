"""Mean and covariance of features, computed in a streaming fashion."""

import copy
from typing import Self

import torch
from torch import Tensor

BLOCK_ROWS = 1024


class Moments:
    """Count, mean and scatter of rows, in float64 on the CPU, updated as rows arrive.

    Memory is that of two matrices [D, D] and one block of rows: 100 MB for D = 2048. Rows are
    processed in blocks of 1024, counted from the first row, so the result is bit-identical however
    the rows are divided among calls of `update`.

    Blocks are combined by their means rather than by sums of squares, which avoids cancellation:
    the official code's E[x x^T] - mu mu^T is the same in exact arithmetic, and loses digits if the
    mean is large compared with the standard deviation.

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
        """Number of rows so far."""
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
        """Add rows [n, D] of any dtype, on any device; n may be 0.

        Raises:
            ValueError: if the width is not D.
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
        """Restore moments from `tensors`; they can be updated further.

        Raises:
            ValueError: if a tensor is missing, or shapes or dtypes do not match.
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
        """Return moments without waiting rows: itself, or a copy, as blocks keep their bounds."""
        if self._num_waiting == 0:
            return self
        whole = copy.deepcopy(self)
        whole._fold()
        return whole

    def _fold(self) -> None:
        """Combine the waiting rows with the sums."""
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
