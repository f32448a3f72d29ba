"""Facts of the form "these indices are one channel", and what follows from them.

Rules state four kinds of facts about tensor axes: indices of two axes are the same channel
(``couple``), an axis is divided into several, so that each of its indices needs one of each
(``factor``), the parts of an axis must keep equal counts (``balance``), an axis cannot be cut
(``freeze``). Channels are then the connected components of the index equalities. The statements
have no direction and no order: a fact learnt late counts for everything before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from onnxprune.arrays import IndexArray
from onnxprune.components import Components, Statements

MOST_CHANNELS = 1 << 24
"""Indices of an axis; those of a longer one are no channels, and none is given a number."""


class Shaped(Protocol):
    """What coupling needs of a tensor; identity, not the name, tells tensors apart."""

    name: str
    shape: Any


@dataclass
class Coupling:
    """Accumulates facts about axes; every index of every axis gets a number (its *slot*)."""

    _slots: dict[tuple[int, int], IndexArray] = field(default_factory=dict)
    _tensors: dict[int, Shaped] = field(default_factory=dict)
    _live: dict[int, set[int]] = field(default_factory=dict)
    _stated: Statements = field(default_factory=Statements)
    _count: int = 0
    touched: set[tuple[int, int]] = field(default_factory=set)

    def axis(self, tensor: Shaped, axis: int) -> IndexArray:
        """The slots of an axis, shape (extent,); empty when the extent is not a known number."""
        key = (id(tensor), axis)
        self.touched.add(key)
        self._live.setdefault(id(tensor), set()).add(axis)
        if key not in self._slots:
            known = tensor.shape is not None and axis < len(tensor.shape)
            extent = tensor.shape[axis] if known else None
            size = extent if isinstance(extent, int) and 0 < extent <= MOST_CHANNELS else 0
            self._slots[key] = self.slots(size)
            self._tensors[id(tensor)] = tensor
        return self._slots[key]

    def slots(self, size: int) -> IndexArray:
        """New slots that belong to no axis, shape (size,): a factor no tensor shows by itself."""
        first, self._count = self._count, self._count + size
        return np.arange(first, self._count, dtype=np.int64)

    def live(self, tensor: Shaped) -> list[int]:
        """The axes of a tensor that facts have been stated about so far, sorted."""
        return sorted(self._live.get(id(tensor), ()))

    def couple(self, left: IndexArray, right: IndexArray) -> None:
        """State that left[i] and right[i] are one channel, for every i."""
        if left.shape == right.shape:
            self._stated.equal.append((left, right))
            return
        reason = "an extent is dynamic or does not match its neighbour's"
        self.freeze(left, reason)
        self.freeze(right, reason)

    def factor(self, cells: IndexArray, *factors: IndexArray) -> None:
        """State that cells[i] survives if and only if factors[k][i] survives for every k.

        An axis of heads * width entries, reshaped into two, is one: entry (h, d) survives if head
        h and place d do. What survives then is a grid again, and the two axes are cut apart.

        Args:
            cells: slots of the axis that is divided, shape (n,).
            factors: for each of the axes it is divided into, the slot every cell lies on, shape
                (n,).
        """
        if len(factors) == 1:
            self.couple(cells, factors[0])
        elif any(factor.shape != cells.shape for factor in factors):
            for slots in (cells, *factors):
                self.freeze(slots, "the extents of a reshaped axis do not match")
        elif factors and cells.size:
            self._stated.products.append((cells, np.stack(factors)))

    def balance(self, slots: IndexArray, parts: int) -> None:
        """State that the equal, contiguous parts of an axis keep equal counts, indices free."""
        if parts > 1 and slots.size:
            self._stated.balanced.append((slots, parts))

    def freeze(self, slots: IndexArray, reason: str) -> None:
        """State that these indices cannot be cut, and why."""
        if slots.size:
            self._stated.frozen.append((slots, reason))

    def axes(self) -> Iterable[tuple[Shaped, int, IndexArray]]:
        """Every axis facts were stated about: (tensor, axis, slots)."""
        for (key, axis), slots in self._slots.items():
            yield self._tensors[key], axis, slots

    def components(self) -> Components:
        """The channels that follow from the facts."""
        return self._stated.solve(self._count)
