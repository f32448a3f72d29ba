"""Search for the counts with the least total damage under bounds that are not separable.

Greedy descent lowers the group that costs least damage per cost saved, looking at all lower counts
(so that a curve that is not convex does not trap it), and takes prices anew as counts change.
Then single counts are moved, the bounds repaired and the slack given back, for as long as the
total damage falls and the work allowed lasts (derived here; exact for no class of costs, compared
with brute force in the tests). Where no group alone saves anything, because a cost goes in steps
that several groups have to take together, the counts that matter least are lowered until one does;
what that took too much of costs nothing and is given back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.budget import Bound, GroupChoice, cost_steps, holds

BATCH = 8
"""Groups // BATCH groups may move before prices are taken anew."""

TINY = 1e-300
"""Keeps ratios finite."""


class CountSearch:
    """Accumulator: the tables of one search and the evaluations of the costs it has spent.

    A state is an array of *levels*, shape (groups,): indices into each group's allowed counts.
    Tables have the shape (groups, levels) and are padded with the full count and no gain.
    """

    def __init__(self, groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> None:
        self._bounds = bounds
        self._limits = np.array([bound.limit / bound.scale for bound in bounds])
        self._top = np.array([len(group.allowed) - 1 for group in groups], dtype=np.int64)
        width = int(self._top.max()) + 1
        padded = np.minimum(np.arange(width), self._top[:, None])
        self._allowed = np.stack([g.allowed[row] for g, row in zip(groups, padded, strict=True)])
        self._damage = np.stack([g.damage[row] for g, row in zip(groups, padded, strict=True)])
        self._rows = np.arange(len(groups))
        self._inside = _inside(groups)
        self._levels = np.arange(width)
        self._real = self._levels <= self._top[:, None]
        self.evaluations = 0

    def counts(self, levels: IndexArray) -> IndexArray:
        """Kept counts of some levels; both of shape (groups,)."""
        counts: IndexArray = self._allowed[self._rows, levels]
        return counts

    def damage(self, levels: IndexArray) -> float:
        """Total damage, without that of groups that go with a dropped section."""
        gone = self._covered(levels) > 0
        return float(self._damage[self._rows, levels][~gone].sum())

    def _covered(self, levels: IndexArray) -> IndexArray:
        """How many dropped sections each group lies in, shape (groups,)."""
        covered: IndexArray = (self.counts(levels) == 0) @ self._inside
        return covered

    def _prices(self, levels: IndexArray) -> Matrix:
        """What each level of a group adds to the total, the others staying where they are.

        Up to a constant per group: a section that stays has the damage of what lies in it.
        """
        if not self._inside.any():
            return self._damage
        covered = self._covered(levels)
        prices = np.where(covered[:, None] > 0, 0.0, self._damage)
        now = self._damage[self._rows, levels]
        for section in np.flatnonzero(self._inside.any(axis=1) & (covered == 0)):
            own = int(self._allowed[section, levels[section]] == 0)
            inside = self._inside[section]
            alive = (inside > 0) & (covered == own * inside)
            prices[section, self._allowed[section] > 0] += now[alive].sum()
        return prices

    def holds(self, levels: IndexArray) -> bool:
        """Whether all bounds hold."""
        return holds(self._bounds, self.counts(levels))

    def descend(self, levels: IndexArray, free: NDArray[np.bool_]) -> IndexArray | None:
        """Lowers free groups until the bounds hold; None if they cannot.

        Args:
            levels: the start, shape (groups,).
            free: which groups may move, shape (groups,).
        """
        levels = levels.copy()
        while not self.holds(levels):
            cost, steps = self._steps(levels)
            excess = np.maximum(cost - self._limits, 0.0)
            ratio, target = self._best_descents(levels, steps, excess, free)
            moved = False
            for group in np.argsort(ratio, kind="stable")[: max(1, len(ratio) // BATCH)]:
                saved = -steps[group, target[group]]
                if not np.isfinite(ratio[group]) or (moved and not np.any(excess > 0)):
                    break
                levels[group] = target[group]
                excess = excess - saved
                moved = True
            if not moved and not self._cross(levels, free):
                return None
        return levels

    def _cross(self, levels: IndexArray, free: NDArray[np.bool_]) -> bool:
        """Lowers, in place, the free group that minds one level least; False if none can go."""
        lower = free & (levels > 0)
        if not lower.any() or all(bound.multilinear for bound in self._bounds):
            return False
        below = np.maximum(levels - 1, 0)
        rise = self._damage[self._rows, below] - self._damage[self._rows, levels]
        levels[np.argmin(np.where(lower, rise, np.inf))] -= 1
        return True

    def refill(self, levels: IndexArray, free: NDArray[np.bool_]) -> IndexArray:
        """Raises free groups while the bounds hold, the best repair per cost first.

        What costs nothing is kept even if it repairs nothing.
        """
        levels = levels.copy()
        banned = ~(self._real & free[:, None])
        while True:
            cost, steps = self._steps(levels)
            slack = np.maximum(self._limits - cost, 0.0)
            prices = self._prices(levels)
            gain = prices[self._rows, levels][:, None] - prices
            fits = np.all(steps <= slack, axis=2) & (self._levels > levels[:, None])
            free_of_cost = np.all(steps <= 0, axis=2) & (gain >= 0)
            open_moves = fits & ((gain > 0) | free_of_cost) & ~banned
            if not open_moves.any():
                return levels
            use = (np.maximum(steps, 0.0) / np.maximum(slack, TINY)).sum(axis=2)
            with np.errstate(over="ignore"):  # what costs next to nothing comes first
                score = np.where(open_moves, gain / np.maximum(use, TINY), -1.0)
            group, level = np.unravel_index(int(np.argmax(score)), score.shape)
            before = levels[group]
            levels[group] = level
            if not self.holds(levels):  # by rounding only
                levels[group] = before
                banned[group, level] = True

    def improve(self, levels: IndexArray, work: int) -> IndexArray:
        """Moves one group, repairs the bounds, gives the slack back; keeps what lowers damage.

        Args:
            levels: a start at which the bounds hold, shape (groups,).
            work: stop when this many more evaluations of the costs are spent.
        """
        end = self.evaluations + work
        improved = True
        while improved and self.evaluations < end:
            improved = False
            for group, level in self._moves(levels):
                if self.evaluations >= end:
                    break
                trial = self._repaired(levels, group, level)
                if trial is not None and self.damage(trial) < self.damage(levels) * (1 - 1e-12):
                    levels, improved = trial, True
        return levels

    def _repaired(self, levels: IndexArray, group: int, level: int) -> IndexArray | None:
        """The best state near ``levels`` with one group held at another level."""
        if not 0 <= level <= self._top[group] or level == levels[group]:
            return None
        free = self._rows != group
        trial = levels.copy()
        trial[group] = level
        lowered = self.descend(trial, free)
        return None if lowered is None else self.refill(lowered, free)

    def _moves(self, levels: IndexArray) -> Iterator[tuple[int, int]]:
        """One group each to a nearby level, then farther ones: distances 1, 2, 4, ..."""
        distance = 1
        start = levels.copy()
        while distance <= self._top.max():
            for group in self._rows:
                for sign in (1, -1):
                    yield int(group), int(start[group] + sign * distance)
            distance *= 2

    def _steps(self, levels: IndexArray) -> tuple[Vector, Matrix]:
        """Costs (bounds,), and their change for each move of one group (groups, levels, bounds)."""
        self.evaluations += 1
        return cost_steps(self._bounds, self.counts(levels), self._allowed)

    def _best_descents(
        self, levels: IndexArray, steps: Matrix, excess: Vector, free: NDArray[np.bool_]
    ) -> tuple[Vector, IndexArray]:
        """For each group the least damage per useful saving, and the level that has it."""
        useful = np.minimum(np.maximum(-steps, 0.0), excess)[:, :, excess > 0]
        useful = (useful / excess[excess > 0]).sum(axis=2)
        prices = self._prices(levels)
        rise = prices - prices[self._rows, levels][:, None]
        lower = (self._levels < levels[:, None]) & free[:, None] & (useful > 0)
        ratio = np.where(lower, rise / np.where(lower, useful, 1.0), np.inf)
        best = ratio.min(axis=1)
        # among equal ratios the smallest count: fewer, longer steps
        target = np.argmax(ratio <= best[:, None], axis=1)
        return best, target.astype(np.int64)


def _inside(groups: Sequence[GroupChoice]) -> IndexArray:
    """1 where a choice (column) goes with another (row), else 0; shape (groups, groups)."""
    place = {group.name: index for index, group in enumerate(groups)}
    inside = np.zeros((len(groups), len(groups)), np.int64)
    for row, group in enumerate(groups):
        inside[row, [place[name] for name in group.inner]] = 1
    return inside


def least_damage(groups: Sequence[GroupChoice], bounds: Sequence[Bound], work: int) -> IndexArray:
    """Counts, shape (groups,), with little total damage at which all bounds hold.

    Args:
        groups: the choices; at least one.
        bounds: bounds that hold at the floors.
        work: evaluations of the costs that the improvement may spend.
    """
    search = CountSearch(groups, bounds)
    free = np.ones(len(groups), dtype=bool)
    full = np.array([len(group.allowed) - 1 for group in groups], dtype=np.int64)
    levels = search.descend(full, free)
    levels = np.zeros_like(full) if levels is None else levels
    return search.counts(search.improve(search.refill(levels, free), work))
