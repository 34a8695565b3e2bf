"""Running means of what a step reports."""

from typing import Any

import torch
from torch import Tensor


class Averages:
    """Mean of each named term since the last report, summed on the device in float64 where it can.

    A term that is not finite is counted apart and does not spoil its mean.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one value of each term, [] each."""
        for name, value in terms.items():
            value = value.detach().to(torch.float32)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def report(self) -> dict[str, float]:
        """Return the means, sorted by name, and start anew."""
        names = sorted(self._sums)
        values = torch.stack([self._sums[name] for name in names]).tolist() if names else []
        means = {
            name: value / self._counts[name] for name, value in zip(names, values, strict=True)
        }
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
