"""Channels as connected components of slots, and what several statements about them imply.

Slots stated to be equal are one component. A component that is divided into factors (a cell of a
grid) is alive if and only if all of its factors are, so it is no channel of its own but follows
them. Statements may contradict that freedom: a frozen cell freezes its factors, a factor that is
frozen no longer matters, and a cell with one factor left is that factor. These conclusions are
drawn until none is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.arrays import IndexArray

NO_INDICES: IndexArray = np.empty(0, np.int64)
NO_CHANNEL = NO_SLOT = -1
TWO_WAYS = "its channels are divided into factors in two ways"
GRID_IN_PARTS = "a grouped convolution divides channels that a Reshape divides in another way"


Product = tuple[IndexArray, IndexArray]
"""Cells (n,) and the factors of each, (k, n)."""


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
    products: list[Product] = field(default_factory=list)
    frozen: list[tuple[IndexArray, str]] = field(default_factory=list)
    balanced: list[tuple[IndexArray, int]] = field(default_factory=list)

    def solve(self, count: int) -> Components:
        """The components of ``count`` slots, and what the statements imply for them."""
        equal, frozen = list(self.equal), list(self.frozen)
        width = max((len(factors) for _, factors in self.products), default=1)
        while True:
            label, components = _connected(equal, count)
            reasons = _reasons(frozen, label)
            grid = _Grid(label, _frozen_mask(reasons, components), self.products, width)
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
    """

    def __init__(
        self, label: IndexArray, frozen: NDArray[np.bool_], products: list[Product], width: int
    ) -> None:
        self.equal: list[tuple[IndexArray, IndexArray]] = []
        self.frozen: list[tuple[IndexArray, int, str]] = []
        self._label = label
        self._is_frozen = frozen
        # For every component the slots of its factors, outermost first, then NO_SLOT.
        self._factors = np.full((frozen.size, width), NO_SLOT)
        for cells, factors in products:
            self._add(cells, factors)

    @property
    def factors(self) -> dict[int, tuple[int, ...]]:
        """Component -> its factors, for cells."""
        cells = np.flatnonzero(self._is_cell())
        slots = self._factors[cells]
        labels = np.where(slots == NO_SLOT, NO_CHANNEL, self._label[slots])
        return {
            cell: tuple(label for label in row if label != NO_CHANNEL)
            for cell, row in zip(cells.tolist(), labels.tolist(), strict=True)
        }

    def _is_cell(self) -> NDArray[np.bool_]:
        """Which components have factors."""
        found: NDArray[np.bool_] = self._factors[:, 0] != NO_SLOT
        return found

    def _add(self, cells: IndexArray, factors: IndexArray) -> None:
        """Draw the conclusions of one statement: cells (n,), factors (k, n)."""
        cell_frozen = self._is_frozen[self._label[cells]]
        free = ~self._is_frozen[self._label[factors]]
        for factor, alive in zip(factors, free, strict=True):
            self._freeze_alike(factor[cell_frozen & alive], cells[cell_frozen & alive])
        left = ~cell_frozen & ~free.any(axis=0)
        self._freeze_alike(cells[left], factors[-1][left])
        open_cells = ~cell_frozen & free.any(axis=0)
        if open_cells.any():
            self._relate(cells[open_cells], factors[:, open_cells].T, free[:, open_cells].T)

    def _freeze_alike(self, slots: IndexArray, like: IndexArray) -> None:
        """Freeze slots for the reasons that other slots are frozen for, one by one."""
        labels, first, inverse = np.unique(
            self._label[like], return_index=True, return_inverse=True
        )
        for index in range(labels.size):
            self.frozen.append((slots[inverse == index], int(like[first[index]]), ""))

    def _relate(self, cells: IndexArray, factors: IndexArray, free: NDArray[np.bool_]) -> None:
        """Compare what cells (n,) need, the free ones of their factors (n, k), with what is known.

        A cell of one component is that component; equal cells have equal factors.
        """
        in_order = np.argsort(~free, axis=1, kind="stable")
        needed = np.take_along_axis(np.where(free, factors, NO_SLOT), in_order, axis=1)
        labels = np.where(needed == NO_SLOT, NO_CHANNEL, self._label[needed])
        single = ((labels == labels[:, :1]) | (labels == NO_CHANNEL)).all(axis=1)
        owner = self._label[cells]
        new = single & (owner != labels[:, 0])
        if new.any():
            self.equal.append((cells[new], needed[new, 0]))
        cells, needed, labels, owner = (a[~single] for a in (cells, needed, labels, owner))
        owners, first = np.unique(owner, return_index=True)
        unknown = self._factors[owners, 0] == NO_SLOT
        self._factors[owners[unknown], : needed.shape[1]] = needed[first[unknown]]
        known = self._factors[owner, : needed.shape[1]]
        more = (self._factors[owner, needed.shape[1] :] != NO_SLOT).any(axis=1)
        crossed = ((known == NO_SLOT) != (needed == NO_SLOT)).any(axis=1) | more
        if crossed.any():
            slots = np.append(needed[crossed], cells[crossed])
            self.frozen.append((slots[slots != NO_SLOT], 0, TWO_WAYS))
        pairs = ~crossed[:, None] & (needed != NO_SLOT) & (self._label[known] != labels)
        if pairs.any():
            self.equal.append((known[pairs], needed[pairs]))

    def keep_apart(self, balanced: list[tuple[IndexArray, int]]) -> None:
        """Freeze cells on axes whose parts count, and components that need themselves."""
        is_cell = self._is_cell()
        for slots, _ in balanced:
            cells = slots[is_cell[self._label[slots]]]
            if cells.size:
                self.frozen.append((cells, 0, GRID_IN_PARTS))
        for component in self._circular(np.flatnonzero(is_cell)):
            self.frozen.append((np.flatnonzero(self._label == component), 0, TWO_WAYS))

    def _circular(self, cells: IndexArray) -> IndexArray:
        """Components that are among their own factors, or those of their factors."""
        rows, columns = np.nonzero(self._factors[cells] != NO_SLOT)
        source, target = cells[rows], self._label[self._factors[cells[rows], columns]]
        graph = coo_array(
            (np.ones(source.size, np.bool_), (source, target)), shape=(self._is_frozen.size,) * 2
        )
        _, strong = connected_components(graph, directed=True, connection="strong")
        several = np.bincount(strong)[strong[cells]] > 1
        circular: IndexArray = cells[several | np.isin(cells, source[source == target])]
        return circular


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
