"""Medoids: keep the channels that stand for clusters of channels made by similar weights.

Clustering by k-means (model folding, arXiv 2502.10216) gives other clusters for every count. A
ranking needs keeps that contain one another, so medoids are added one at a time: the next is
the unit that brings all others closest to a medoid (greedy k-medoids, derived here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix
from onnxprune.criteria.magnitude import activity
from onnxprune.criteria.reduction import DAMPING, error_curve, feature_table
from onnxprune.layer_problem import GroupProblem
from onnxprune.ranking import Ranking

TIE = 1e-12
"""Of two units that serve only one another both bring the rest as close; sums differ by rounding,
below this part of all distances, and the unit that is farther from the medoids goes first."""


def weight_distances(problem: GroupProblem) -> Matrix:
    """Squared distances of the weights that make the units, or where none are known, read them.

    Returns:
        Array of shape (units, units).
    """
    makers = list(problem.producer_weights) or [_read(problem)]
    total = np.zeros((len(problem.channels), len(problem.channels)))
    for rows in makers:
        scale = float((rows**2).mean())
        if scale > 0:  # no producer outvotes another by the size of its weights
            norms = (rows**2).sum(axis=1)
            total += np.maximum(norms[:, None] + norms - 2 * rows @ rows.T, 0.0) / scale
    return total


def _read(problem: GroupProblem) -> Matrix:
    """The weights that read each unit, shape (units, any)."""
    columns = []
    for layer in problem.consumers:
        table = feature_table(layer, problem.channels)
        found = np.where(table >= 0, layer.weight[:, table], 0.0)
        columns.append(found.swapaxes(0, 1).reshape(len(table), -1))
    return np.concatenate(columns, axis=1)


def medoid_order(distance: Matrix, parts: IndexArray, alive: IndexArray) -> IndexArray:
    """Units in the order in which they become medoids.

    Args:
        distance: shape (units, units), 0 on the diagonal.
        parts: shape (units,); a medoid is only taken from the parts with fewest so far.
        alive: shape (units,), bool; the others come last within their part, and count for nobody.

    Returns:
        Permutation of range(units).
    """
    units = len(distance)
    taken = np.zeros(int(parts.max(initial=0)) + 1, dtype=np.int64)
    left = np.ones(units, dtype=bool)
    gap = np.where(alive, distance.max(axis=0, initial=0.0), 0.0)  # as if a far one were taken
    order = np.zeros(units, dtype=np.int64)
    for step in range(units):
        allowed = np.flatnonzero(left)
        allowed = allowed[taken[parts[allowed]] == taken[parts[allowed]].min()]
        rest = np.minimum(distance[allowed], gap).sum(axis=1)
        rest[~alive[allowed]] = np.inf
        equal = allowed[rest <= rest.min() + TIE * float(distance.sum())]
        chosen = int(equal[np.argmax(gap[equal])])
        order[step] = chosen
        left[chosen] = False
        taken[parts[chosen]] += 1
        gap = np.minimum(gap, distance[chosen]) if alive[chosen] else gap
    return order


@dataclass(frozen=True)
class Medoids:
    """Keeps the units that are nearest to all others by the weights that make them.

    It looks at weights only; the price of each count is the consumers' real error.
    """

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by greedy k-medoids."""
        alive = np.sum([activity(layer, problem) for layer in problem.consumers], axis=0) > 0
        order = medoid_order(weight_distances(problem), problem.parts, alive)
        return Ranking(order=order, error=error_curve(problem, order, DAMPING))
