"""Channels as connected components of slots, and what several statements about them imply.

Slots stated to be equal are one component. A component that is divided into factors (a cell of a
grid) is alive if and only if all of its factors are, so it is no channel of its own but follows
them. Statements may contradict that freedom: a frozen cell freezes its factors, a factor that is
frozen no longer matters, and a cell with one factor left is that factor. These conclusions are
drawn until none is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.arrays import IndexArray

NO_INDICES: IndexArray = np.empty(0, np.int64)
NO_CHANNEL = -1
TWO_WAYS = "its channels are divided into factors in two ways"
GRID_IN_PARTS = "a grouped convolution divides channels that a Reshape divides in another way"


@dataclass(frozen=True)
class Components:
    """Channels as connected components of slots.

    Attributes:
        label: shape (slots,); the component of every slot.
        count: number of components.
        reasons: why a component is frozen, for those that are.
        balanced: for every balanced axis, its components in index order and its number of parts.
        factors: component -> the two or more components it needs to survive, for cells of a grid;
            none of them is frozen. Factors may have factors themselves.
    """

    label: IndexArray
    count: int
    reasons: dict[int, str]
    balanced: list[tuple[IndexArray, int]]
    factors: dict[int, tuple[int, ...]]

    def channels(self, component: int) -> tuple[int, ...]:
        """The components without factors that this one follows; itself, if it has none."""
        if component not in self.factors:
            return (component,)
        found = {c: None for f in self.factors[component] for c in self.channels(f)}
        return tuple(found)

    def on(self, slots: IndexArray) -> IndexArray:
        """The channels on some slots; several for a cell, so that the shape is another."""
        found = self._leaves[self.label[slots]]
        channels: IndexArray = found[found != NO_CHANNEL]
        return channels

    @cached_property
    def _leaves(self) -> IndexArray:
        """For every component the channels it follows, shape (count, most), filled up."""
        of_cells = {component: self.channels(component) for component in self.factors}
        leaves = np.full((self.count, max(map(len, of_cells.values()), default=1)), NO_CHANNEL)
        leaves[:, 0] = np.arange(self.count)
        for component, channels in of_cells.items():
            leaves[component, : len(channels)] = channels
        return leaves


@dataclass(frozen=True)
class Statements:
    """What rules stated about slots, as ``Coupling`` collects it.

    Attributes:
        equal: pairs of slot arrays of one shape, equal element by element.
        products: (cells, shape (n,); factors, shape (k, n)).
        frozen: (slots, reason).
        balanced: (slots of an axis, parts).
    """

    equal: list[tuple[IndexArray, IndexArray]] = field(default_factory=list)
    products: list[tuple[IndexArray, IndexArray]] = field(default_factory=list)
    frozen: list[tuple[IndexArray, str]] = field(default_factory=list)
    balanced: list[tuple[IndexArray, int]] = field(default_factory=list)

    def solve(self, count: int) -> Components:
        """The components of ``count`` slots, and what the statements imply for them."""
        equal, frozen = list(self.equal), list(self.frozen)
        while True:
            label, components = _connected(equal, count)
            reasons = _reasons(frozen, label)
            grid = _Grid(label, _frozen_mask(reasons, components))
            for cells, factors in self.products:
                grid.add(cells, factors)
            grid.keep_apart(self.balanced)
            if not grid.equal and not grid.frozen:
                balanced = [(label[slots], parts) for slots, parts in self.balanced]
                return Components(label, components, reasons, balanced, grid.factors)
            equal += grid.equal
            frozen += [(slots, why or reasons[label[like]]) for slots, like, why in grid.frozen]


class _Grid:
    """One round of conclusions about cells and factors.

    Attributes:
        equal: pairs of slots that have to be one component.
        frozen: (slots that have to be frozen, a slot frozen for the same reason, or the reason).
        factors: component -> its factors.
    """

    def __init__(self, label: IndexArray, frozen: NDArray[np.bool_]) -> None:
        self.equal: list[tuple[IndexArray, IndexArray]] = []
        self.frozen: list[tuple[IndexArray, int, str]] = []
        self.factors: dict[int, tuple[int, ...]] = {}
        self._slots_of: dict[int, tuple[int, ...]] = {}
        self._label = label
        self._is_frozen = frozen

    def add(self, cells: IndexArray, factors: IndexArray) -> None:
        """Draw the conclusions of one statement: cells (n,), factors (k, n)."""
        cell_frozen = self._is_frozen[self._label[cells]]
        factor_frozen = self._is_frozen[self._label[factors]]
        for place in np.flatnonzero(cell_frozen & ~factor_frozen.all(axis=0)).tolist():
            alive = factors[~factor_frozen[:, place], place]
            self.frozen.append((alive, int(cells[place]), ""))
        for place in np.flatnonzero(~cell_frozen).tolist():
            needed = factors[~factor_frozen[:, place], place]
            if needed.size:
                self._cell(int(cells[place]), needed)
            else:
                self.frozen.append((cells[place : place + 1], int(factors[-1, place]), ""))

    def _cell(self, cell: int, needed: IndexArray) -> None:
        """A cell that is not frozen and the slots of its factors that are not."""
        one = np.array([cell])
        wanted = tuple(self._label[needed].tolist())
        owner = int(self._label[cell])
        if len(set(wanted)) == 1:
            if wanted[0] != owner:
                self.equal.append((one, needed[:1]))
            return
        known = self.factors.get(owner)
        if known is None:
            self.factors[owner], self._slots_of[owner] = wanted, tuple(needed.tolist())
        elif len(known) != len(wanted):
            self.frozen.append((np.append(needed, cell), cell, TWO_WAYS))
        elif known != wanted:
            self.equal.append((np.array(self._slots_of[owner]), needed))

    def keep_apart(self, balanced: list[tuple[IndexArray, int]]) -> None:
        """Freeze cells on axes whose parts count, and components that need themselves."""
        for slots, _ in balanced:
            cells = [slot for slot in slots.tolist() if int(self._label[slot]) in self.factors]
            if cells:
                self.frozen.append((np.array(cells), cells[0], GRID_IN_PARTS))
        for component in self._circular():
            slots = np.flatnonzero(self._label == component)
            self.frozen.append((slots, int(slots[0]), TWO_WAYS))

    def _circular(self) -> Iterator[int]:
        """Components that are among their own factors, or those of their factors."""
        if not self.factors:
            return
        pairs = np.array([(c, f) for c, factors in self.factors.items() for f in factors])
        size = int(pairs.max()) + 1
        graph = coo_array((np.ones(len(pairs), np.bool_), pairs.T), shape=(size, size))
        _, strong = connected_components(graph, directed=True, connection="strong")
        sizes = np.bincount(strong)
        loops = set(pairs[pairs[:, 0] == pairs[:, 1], 0].tolist())
        yield from (c for c in self.factors if sizes[strong[c]] > 1 or c in loops)


def _connected(equal: list[tuple[IndexArray, IndexArray]], count: int) -> tuple[IndexArray, int]:
    left = np.concatenate([pair[0] for pair in equal] or [NO_INDICES])
    right = np.concatenate([pair[1] for pair in equal] or [NO_INDICES])
    graph = coo_array((np.ones(left.size, np.bool_), (left, right)), shape=(count, count))
    components, label = connected_components(graph, directed=False)
    return label.astype(np.int64), components


def _reasons(frozen: list[tuple[IndexArray, str]], label: IndexArray) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for slots, reason in frozen:
        for component in np.unique(label[slots]).tolist():
            reasons.setdefault(component, reason)
    return reasons


def _frozen_mask(reasons: dict[int, str], components: int) -> NDArray[np.bool_]:
    mask = np.zeros(components, np.bool_)
    mask[list(reasons)] = True
    return mask
