"""Means of the statistics that training steps report."""

from typing import Any

import torch
from torch import Tensor


class Averages:
    """Mean of each named statistic since the last report, summed on its device.

    Values that are not finite are not counted; the steps that they come from are skipped, too.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, stats: dict[str, Tensor]) -> None:
        """Add one value of each statistic, [] each."""
        for name, value in stats.items():
            is_finite = torch.isfinite(value)
            value = torch.where(is_finite, value.detach(), 0).to(torch.float32)
            count = is_finite.to(torch.float32)
            if name in self._sums:
                value, count = self._sums[name] + value, self._counts[name] + count
            self._sums[name], self._counts[name] = value, count

    def report(self) -> dict[str, float]:
        """Return the means, sorted by name, and reset. Statistics without a value are omitted."""
        names = sorted(self._sums)
        pairs = [torch.stack([self._sums[name], self._counts[name]]) for name in names]
        values = torch.stack(pairs).tolist() if pairs else []
        means = {
            name: total / count
            for name, (total, count) in zip(names, values, strict=True)
            if count > 0
        }
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any], *, device: torch.device) -> None:
        """Restore the result of `state_dict` on a device."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = {name: value.to(device) for name, value in state["counts"].items()}
