"""What an allocation chooses among: allowed counts per group, and bounds on costs.

A cost (MACs, parameters) is multilinear in the counts: MACs of a layer are the product of the
counts before and after it. In one group's count, with the others fixed, it is affine, so two
evaluations per group give the exact price of every count of that group (derived here). Measured
time goes in steps instead, and is evaluated at every count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.errors import TargetError
from onnxprune.target import spelled

Costs = Callable[[Array], Array]
"""Counts of shape (..., groups) -> cost of shape (...)."""

WORDS = {"ratio": "kept channels (1 - ratio)", "size": "file size"}
"""What a message calls a cost, where not as its target."""

NAMED = 5
"""How many groups a message about an unreachable target names."""


@dataclass(frozen=True)
class GroupChoice:
    """The counts one group may keep, and what each does.

    Attributes:
        name: the group's name.
        allowed: kept counts, ascending, the last is the full size; shape (counts,).
        damage: predicted divergence at each count, non-increasing, 0 at full; shape (counts,).
        error: relative consumer error at each count, non-increasing; shape (counts,).
        unexplained: share of what the channels carry that so many leave unexplained,
            non-increasing, 0 at full; shape (counts,). None where no allocation asks for it.
        inner: names of the choices that count for nothing when this one is 0: what goes with a
            section that is dropped.
    """

    name: str
    allowed: IndexArray
    damage: Vector
    error: Vector
    unexplained: Vector | None = None
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bound:
    """One target: the cost of the pruned network must not exceed ``limit``.

    Attributes:
        kind: what is bounded, as a target calls it.
        cost: the cost as a function of all groups' counts.
        limit: the largest cost allowed.
        full: the cost of the unpruned network.
        multilinear: whether the cost is multilinear in the counts and non-decreasing; any other
            cost is evaluated at every count of every group.
    """

    kind: str
    cost: Costs
    limit: float
    full: float
    multilinear: bool = True

    @property
    def scale(self) -> float:
        """What costs are divided by to compare bounds."""
        return self.full if self.full > 0 else 1.0


def full_counts(groups: Sequence[GroupChoice]) -> IndexArray:
    """Every group at its full size; shape (groups,)."""
    return np.array([group.allowed[-1] for group in groups], dtype=np.int64)


def floor_counts(groups: Sequence[GroupChoice]) -> IndexArray:
    """Every group at its smallest allowed count; shape (groups,)."""
    return np.array([group.allowed[0] for group in groups], dtype=np.int64)


def holds(bounds: Sequence[Bound], counts: IndexArray) -> bool:
    """Whether all bounds hold at counts of shape (groups,)."""
    return all(float(bound.cost(counts)) <= bound.limit for bound in bounds)


def cost_steps(
    bounds: Sequence[Bound], counts: IndexArray, allowed: IndexArray
) -> tuple[Vector, Matrix]:
    """The costs at some counts, and their change for each move of one group.

    Args:
        bounds: the bounds, whose costs are scaled to 1 for the unpruned network.
        counts: shape (groups,).
        allowed: the counts each group may move to, ascending; shape (groups, levels).

    Returns:
        Costs of shape (bounds,) and changes of shape (groups, levels, bounds).
    """
    costs = np.zeros(len(bounds))
    steps = np.zeros((*allowed.shape, len(bounds)))
    affine = [at for at, bound in enumerate(bounds) if bound.multilinear]
    if affine:
        costs[affine], prices = affine_costs(
            [bounds[at] for at in affine], counts, allowed[:, 0], allowed[:, -1]
        )
        steps[..., affine] = (allowed - counts[:, None])[:, :, None] * prices[:, None, :]
    for at, bound in enumerate(bounds):
        if not bound.multilinear:
            now, *moved = bound.cost(_moves(counts, allowed)) / bound.scale
            costs[at], steps[..., at] = now, np.reshape(moved, allowed.shape) - now
    return costs, steps


def _moves(counts: IndexArray, allowed: IndexArray) -> IndexArray:
    """The counts, then those after each move of one group: (1 + groups * levels, groups)."""
    groups = np.arange(len(counts))
    trials = np.tile(counts, (*allowed.shape, 1))
    trials[groups, :, groups] = allowed
    return np.concatenate([counts[None], trials.reshape(-1, len(counts))])


def affine_costs(
    bounds: Sequence[Bound], counts: IndexArray, low: IndexArray, high: IndexArray
) -> tuple[Vector, Matrix]:
    """The costs at some counts, and the price of one more channel in each group.

    Args:
        bounds: multilinear bounds, whose costs are scaled to 1 for the unpruned network.
        counts: shape (groups,).
        low: the smallest count of each group, shape (groups,).
        high: the largest, shape (groups,).

    Returns:
        Costs of shape (bounds,) and prices of shape (groups, bounds).
    """
    groups = len(counts)
    other = np.where(counts > low, low, high)
    trials = np.tile(counts, (groups + 1, 1))
    trials[np.arange(groups), np.arange(groups)] = other
    costs = np.stack([bound.cost(trials) / bound.scale for bound in bounds], axis=1)
    distance = np.where(other == counts, 1, counts - other)
    prices = (costs[-1] - costs[:-1]) / distance[:, None]
    return costs[-1], np.maximum(prices, 0.0)


def require_reachable(groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> None:
    """Raises TargetError if a bound fails with every group at its floor."""
    floors = floor_counts(groups)
    for bound in bounds:
        least = float(bound.cost(floors))
        if least > bound.limit:
            raise TargetError(_unreachable(groups, bound, floors, least))


def _unreachable(
    groups: Sequence[GroupChoice], bound: Bound, floors: IndexArray, least: float
) -> str:
    """Says how far the bound can be met, and what stands in the way."""
    without = np.tile(floors, (len(groups), 1))
    np.fill_diagonal(without, 0)
    shares = (least - bound.cost(without)) / least if len(groups) else np.zeros(0)
    largest = [int(g) for g in np.argsort(-shares, kind="stable")[:NAMED] if shares[g] > 0]
    named = ", ".join(f"{groups[g].name} ({shares[g]:.0%})" for g in largest)
    most = "most of what is left passes through"
    if shares.sum() < 0.5:  # most of a time, or of a file, can be what no count changes
        most = "most of what is left depends on no channel group, the rest passes through"
    reason = (
        f"With every group at its smallest count, {most}: {named}."
        if named
        else "No channel group has a part in it."
    )
    return (
        f"the target {WORDS.get(bound.kind, bound.kind)} = {bound.limit / bound.scale:.4g} of the "
        f"original ({spelled(bound.kind, bound.limit)}) cannot be reached: the smallest reachable "
        f"value is {least / bound.scale:.4g} ({spelled(bound.kind, least)}). {reason} "
        "Exclude fewer groups, lower the alignment, or choose a looser target."
    )
