"""Local search over which units of a group stay: exchanges that lower the consumers' error.

With P the inverse of a consumer's Gram and W its weights, removing the units D costs
tr(W_D (P_DD)^-1 W_D^T) once the consumer is refitted. To exchange, one removed unit comes back and
the cheapest of those that stay leaves instead (in the manner of OSSCAR, arXiv 2403.12983).
"""

from __future__ import annotations

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.criteria.reduction import DAMPING, Reduced, reduce_group
from onnxprune.layer_problem import GroupProblem
from onnxprune.linalg import factor, inverse_of

MOST_SWEEPS = 4
"""Times every removed unit is tried."""

GAIN = 1e-6
"""Relative fall of the error below which an exchange is not made."""


class _Consumer:
    """What removals cost one consumer."""

    def __init__(self, reduced: Reduced) -> None:
        self._block, self._weight = reduced.block, reduced.weight
        self._inverse: Matrix = inverse_of(factor(reduced.gram, 0.0))
        self._variance = reduced.variance

    def costs(self, removed: IndexArray) -> tuple[float, Vector]:
        """The relative error without these units, and its rise without each other one.

        Returns:
            The error, and an array of shape (units,), infinite for the removed.
        """
        units = len(self._inverse) // self._block
        inside = np.zeros(units, bool)
        inside[removed] = True
        gone = np.repeat(inside, self._block)
        weight, inverse = self._weight, self._inverse
        solved = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[gone])
        error = float(
            np.vdot(
                np.linalg.solve(inverse[np.ix_(gone, gone)], weight[:, gone].T), weight[:, gone].T
            )
        )
        rest = (weight - weight[:, gone] @ solved)[:, ~gone]
        left = (inverse - inverse[:, gone] @ solved)[np.ix_(~gone, ~gone)]
        count = units - len(removed)
        blocks = left.reshape(count, self._block, count, self._block)
        own = blocks[np.arange(count), :, np.arange(count)]
        columns = rest.reshape(len(rest), count, self._block).transpose(1, 2, 0)
        rise = np.full(units, np.inf)
        rise[~inside] = np.einsum("ubo,ubo->u", np.linalg.solve(own, columns), columns)
        return error / self._variance, rise / self._variance


def swapped(problem: GroupProblem, keep: IndexArray) -> IndexArray:
    """The units to keep after exchanges, sorted; as many, of every part, as before.

    Args:
        problem: the group.
        keep: the units that were to stay.
    """
    consumers = [_Consumer(reduced) for reduced in reduce_group(problem, DAMPING)]
    removed = list(np.setdiff1d(np.arange(len(problem.channels)), keep))
    for _ in range(MOST_SWEEPS if consumers else 0):
        before = list(removed)
        for unit in before:
            others = np.array([u for u in removed if u != unit], np.int64)
            found = [consumer.costs(others) for consumer in consumers]
            rise = np.sum([own for _, own in found], axis=0)
            rise[problem.parts != problem.parts[unit]] = np.inf
            best = int(np.argmin(rise))
            total = sum(error for error, _ in found) + rise[unit]
            if rise[unit] - rise[best] > GAIN * total:
                removed = [*others, best]
        if set(before) == set(removed):
            break
    return np.setdiff1d(np.arange(len(problem.channels)), removed)
