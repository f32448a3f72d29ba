"""Facts of the form "these indices are one channel", and what follows from them.

Rules state three kinds of facts about tensor axes: indices of two axes are the same channel
(``couple``), the parts of an axis must keep equal counts (``balance``), an axis cannot be cut
(``freeze``). Channels are then the connected components of the index equalities. The statements
have no direction and no order: a fact learnt late counts for everything before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.arrays import IndexArray


class Shaped(Protocol):
    """What coupling needs of a tensor; identity, not the name, tells tensors apart."""

    name: str
    shape: Any


NO_INDICES: IndexArray = np.empty(0, np.int64)


@dataclass
class Coupling:
    """Accumulates facts about axes; every index of every axis gets a number (its *slot*)."""

    _slots: dict[tuple[int, int], IndexArray] = field(default_factory=dict)
    _tensors: dict[int, Shaped] = field(default_factory=dict)
    _live: dict[int, set[int]] = field(default_factory=dict)
    _edges: list[tuple[IndexArray, IndexArray]] = field(default_factory=list)
    _frozen: list[tuple[IndexArray, str]] = field(default_factory=list)
    _balanced: list[tuple[IndexArray, int]] = field(default_factory=list)
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
            size = extent if isinstance(extent, int) and extent > 0 else 0
            self._slots[key] = np.arange(self._count, self._count + size, dtype=np.int64)
            self._tensors[id(tensor)] = tensor
            self._count += size
        return self._slots[key]

    def live(self, tensor: Shaped) -> list[int]:
        """The axes of a tensor that facts have been stated about so far, sorted."""
        return sorted(self._live.get(id(tensor), ()))

    def couple(self, left: IndexArray, right: IndexArray) -> None:
        """State that left[i] and right[i] are one channel, for every i."""
        if left.shape == right.shape:
            self._edges.append((left, right))
            return
        reason = "an extent is dynamic or does not match its neighbour's"
        self.freeze(left, reason)
        self.freeze(right, reason)

    def balance(self, slots: IndexArray, parts: int) -> None:
        """State that the equal, contiguous parts of an axis keep equal counts, indices free."""
        if parts > 1 and slots.size:
            self._balanced.append((slots, parts))

    def freeze(self, slots: IndexArray, reason: str) -> None:
        """State that these indices cannot be cut, and why."""
        if slots.size:
            self._frozen.append((slots, reason))

    def axes(self) -> Iterable[tuple[Shaped, int, IndexArray]]:
        """Every axis facts were stated about: (tensor, axis, slots)."""
        for (key, axis), slots in self._slots.items():
            yield self._tensors[key], axis, slots

    def components(self) -> Components:
        """The channels that follow from the facts."""
        left = np.concatenate([e[0] for e in self._edges] or [NO_INDICES])
        right = np.concatenate([e[1] for e in self._edges] or [NO_INDICES])
        graph = coo_array((np.ones(left.size, np.bool_), (left, right)), shape=(self._count,) * 2)
        count, label = connected_components(graph, directed=False)
        reasons: dict[int, str] = {}
        for slots, reason in self._frozen:
            for channel in np.unique(label[slots]):
                reasons.setdefault(int(channel), reason)
        balanced = [(label[slots], parts) for slots, parts in self._balanced]
        return Components(label.astype(np.int64), count, reasons, balanced)


@dataclass(frozen=True)
class Components:
    """Channels as connected components of slots.

    Attributes:
        label: shape (slots,); the channel of every slot.
        count: number of channels.
        reasons: why a channel is frozen, for those that are.
        balanced: for every balanced axis, its channels in index order and its number of parts.
    """

    label: IndexArray
    count: int
    reasons: dict[int, str]
    balanced: list[tuple[IndexArray, int]]
