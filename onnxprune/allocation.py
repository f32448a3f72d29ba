"""Allocation: how many channels every group keeps, so that all bounds hold and little is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.arrays import IndexArray, Vector
from onnxprune.budget import (
    Bound,
    Costs,
    GroupChoice,
    floor_counts,
    full_counts,
    holds,
    require_reachable,
)
from onnxprune.greedy import least_damage

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "Bound",
    "Costs",
    "EqualError",
    "EqualShare",
    "GroupChoice",
    "PowerLaw",
    "Sensitivity",
    "Uniform",
    "at_share",
    "fit_damage",
]

EXPONENTS = (0.5, 2.5)
"""Exponents of damage that measurements may claim; beyond them they are noise."""

FLOOR = 1e-4
"""Measured errors and divergences count at least this part of the largest of them."""


class Allocation(Protocol):
    """Chooses the kept count of every group."""

    def allocate(self, groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> IndexArray:
        """Kept counts, shape (groups,), at which all bounds hold.

        Raises:
            TargetError: if they do not even hold with every group at its smallest count.
        """
        ...


@dataclass(frozen=True)
class Sensitivity:
    """Least total predicted damage.

    Attributes:
        work: evaluations of the costs spent on improving the greedy solution; more is slower and
            may find less damage.
    """

    work: int = 600

    def allocate(self, groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> IndexArray:
        """Greedy descent, then improvement by single moves."""
        require_reachable(groups, bounds)
        full = full_counts(groups)
        if holds(bounds, full):
            return full
        return least_damage(groups, bounds, self.work)


@dataclass(frozen=True)
class EqualError:
    """One level of relative consumer error for all groups, the lowest that meets the bounds."""

    def allocate(self, groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> IndexArray:
        """Bisects over the error levels that occur."""
        return _lowest_level(groups, [group.error for group in groups], bounds)


@dataclass(frozen=True)
class EqualShare:
    """One share left unexplained for all groups, the lowest that meets the bounds.

    Of the channels' second moment for ``cumvar`` (the layer-wise ratios of Subspace Node Pruning,
    Offergeld et al., arXiv 2405.17506), of their variance for ``information`` (the component counts
    of Squeezing Correlated Neurons, Ozen & Orailoglu, ECML PKDD 2020); see ``criteria.spectra``.
    """

    def allocate(self, groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> IndexArray:
        """Bisects over the shares at which some group's count changes."""
        return _lowest_level(groups, _unexplained(groups), bounds)


@dataclass(frozen=True)
class Uniform:
    """One kept fraction for all groups, the largest that meets the bounds."""

    def allocate(self, groups: Sequence[GroupChoice], bounds: Sequence[Bound]) -> IndexArray:
        """Bisects over the fractions at which some group's nearest allowed count changes."""

        def counts_at(fraction: float) -> IndexArray:
            return np.array([_nearest(group, fraction) for group in groups], dtype=np.int64)

        switches = [
            (group.allowed[1:] + group.allowed[:-1]) / (2 * group.allowed[-1]) for group in groups
        ]
        # between two switches nothing changes; 1 keeps all, 0 leaves the floors
        ends = np.unique(np.concatenate([*switches, [0.0, 1.0]]))
        inner = np.concatenate([[1.0], ((ends[1:] + ends[:-1]) / 2)[::-1], [0.0]])
        return _first_that_holds(
            groups, bounds, lambda step: counts_at(float(inner[step])), len(inner)
        )


def _lowest_level(
    groups: Sequence[GroupChoice], curves: Sequence[Vector], bounds: Sequence[Bound]
) -> IndexArray:
    """The smallest counts at which no group's curve is above one level, the lowest that will do."""
    levels = np.unique(np.concatenate(curves or [np.zeros(0)]))
    return _first_that_holds(
        groups, bounds, lambda step: _counts_at(groups, curves, float(levels[step])), len(levels)
    )


def _counts_at(groups: Sequence[GroupChoice], curves: Sequence[Vector], level: float) -> IndexArray:
    """The smallest counts at which no group's curve is above a level; all where there is none."""
    smallest = [int(np.argmax(curve <= level)) for curve in curves]
    return np.array(
        [
            group.allowed[at] if curve[at] <= level else group.allowed[-1]
            for group, curve, at in zip(groups, curves, smallest, strict=True)
        ],
        dtype=np.int64,
    )


def at_share(groups: Sequence[GroupChoice], share: float) -> IndexArray:
    """The smallest counts that leave no group a larger share unexplained.

    Args:
        groups: with what their counts leave unexplained.
        share: the share; below 0 for all channels.
    """
    return _counts_at(groups, _unexplained(groups), share)


def _unexplained(groups: Sequence[GroupChoice]) -> list[Vector]:
    curves = [group.unexplained for group in groups if group.unexplained is not None]
    if len(curves) < len(groups):
        raise ValueError("the allocation needs what counts leave unexplained")
    return curves


def _nearest(group: GroupChoice, fraction: float) -> int:
    """The allowed count nearest to a fraction of the full size; the smaller one of two."""
    distance = np.abs(group.allowed - fraction * float(group.allowed[-1]))
    return int(group.allowed[np.argmin(distance)])


def _first_that_holds(
    groups: Sequence[GroupChoice],
    bounds: Sequence[Bound],
    counts_at: Callable[[int], IndexArray],
    steps: int,
) -> IndexArray:
    """The counts at the first step where all bounds hold; counts fall with the step."""
    require_reachable(groups, bounds)
    full = full_counts(groups)
    if holds(bounds, full):
        return full
    low, high = -1, steps
    while high - low > 1:
        middle = (low + high) // 2
        if holds(bounds, counts_at(middle)):
            high = middle
        else:
            low = middle
    return counts_at(high) if high < steps else floor_counts(groups)


ALLOCATIONS: dict[str, Allocation] = {
    "sensitivity": Sensitivity(),
    "error": EqualError(),
    "uniform": Uniform(),
    "cumvar": EqualShare(),
    "information": EqualShare(),
}
"""Every allocation by its name on the command line."""


@dataclass(frozen=True)
class PowerLaw:
    """Damage as a function of relative consumer error: a * error^b.

    Attributes:
        a: the damage at error 1.
        b: the exponent.
        residual: root mean square of the fit's misses in natural logarithms; 0 for one point.
    """

    a: float
    b: float
    residual: float

    def __call__(self, error: Vector) -> Vector:
        """Predicted divergence, of the shape of ``error``; 0 at error 0."""
        damage: Vector = self.a * np.maximum(error, 0.0) ** self.b
        return damage


def fit_damage(errors: Sequence[float], divergences: Sequence[float]) -> PowerLaw:
    """Fits divergence = a * error^b to trial prunings of a group, by least squares in logarithms.

    Zeros and negative values (noise) count as a small part of the largest value; b is clipped to a
    plausible range, and is 1 where a single error was tried (derived here).

    Args:
        errors: relative consumer error of each trial; at least one.
        divergences: measured divergence of the outputs of each trial.
    """
    if len(errors) == 0 or len(errors) != len(divergences):
        raise ValueError("fit_damage needs as many divergences as errors, and at least one")
    x, y = _logarithms(errors), _logarithms(divergences)
    spread = x - x.mean()
    b = 1.0
    if float(spread @ spread) > FLOOR**2:
        b = float(np.clip(spread @ y / (spread @ spread), *EXPONENTS))
    misses = y - b * x
    a = float(np.exp(misses.mean()))
    return PowerLaw(a=a, b=b, residual=float(np.sqrt(np.mean((misses - misses.mean()) ** 2))))


def _logarithms(values: Sequence[float]) -> Vector:
    """Natural logarithms of values floored to a small part of the largest."""
    array = np.asarray(values, dtype=np.float64)
    floor = max(FLOOR * float(array.max()), float(np.finfo(np.float64).tiny))
    logarithms: Vector = np.log(np.maximum(array, floor))
    return logarithms
