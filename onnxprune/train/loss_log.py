"""Means of losses by name, between one look at them and the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class LossLog:
    """Losses summed where they are: nothing waits for a device until somebody looks."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._last: dict[str, float] = {}

    def add(self, name: str, loss: Tensor) -> None:
        """Count another loss, shape ()."""
        self._sums[name] = self._sums.get(name, 0.0) + loss.detach()
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, names: Iterable[str]) -> dict[str, float]:
        """Name -> mean since the last call; that of before where nothing was added, or NaN."""
        for name, total in self._sums.items():
            self._last[name] = float(total) / self._counts[name]
        self._sums.clear()
        self._counts.clear()
        return {name: self._last.get(name, math.nan) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"sums": sums, "counts": dict(self._counts), "last": dict(self._last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._sums = {name: torch.tensor(total) for name, total in state["sums"].items()}
        self._counts, self._last = dict(state["counts"]), dict(state["last"])
