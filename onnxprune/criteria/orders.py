"""Orders in which Subspace Node Pruning keeps channels: the first ones span the subspace.

Its triangular transform drops the last units of whatever order it is given (Offergeld et al.,
arXiv 2405.17506). *zca* and *saw* are the paper's scores, *l2* and *variance* other importances by
which its first version sorted the units beforehand, *given* leaves them as the model has them, and
*pivoted* always takes the unit that those before it explain least.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.criteria.balance import balanced_order
from onnxprune.criteria.magnitude import magnitudes, variances
from onnxprune.layer_problem import GroupProblem
from onnxprune.linalg import pivoted_ldl

SMALLEST = 1e-7
"""Eigenvalues count at least this part of the largest: Grams are sums of float32 products."""

Order = Callable[[GroupProblem, Matrix], IndexArray]
"""From a group and the joint Gram of its units to a permutation, most important first."""


def zca_scores(gram: Matrix) -> Vector:
    """1 / [(C^-1/2)_ii]^2, the variance of each unit after unnormalised ZCA whitening.

    It lies between the conditional second moment 1 / (C^-1)_ii and C_ii.

    Args:
        gram: C, positive semidefinite, shape (units, units).

    Returns:
        Array of shape (units,); 0 for units that are never active.
    """
    alive = np.flatnonzero(np.diag(gram) > 0)
    scores = np.zeros(len(gram))
    if alive.size:
        values, vectors = np.linalg.eigh(gram[np.ix_(alive, alive)])
        values = np.maximum(values, SMALLEST * values[-1])
        scores[alive] = 1.0 / (vectors**2 @ values**-0.5) ** 2
    return scores


def _zca(problem: GroupProblem, gram: Matrix) -> IndexArray:
    return balanced_order(zca_scores(gram), problem.parts)


def _pivoted(problem: GroupProblem, gram: Matrix) -> IndexArray:
    order, _ = pivoted_ldl(gram, problem.parts)
    return order


def _by(scores: Callable[[GroupProblem], Vector]) -> Order:
    """The order by scores that need no joint Gram; units that are never active come last."""

    def order(problem: GroupProblem, gram: Matrix) -> IndexArray:
        return balanced_order(np.where(np.diag(gram) > 0, scores(problem), -1.0), problem.parts)

    return order


ORDERS: dict[str, Order] = {
    "zca": _zca,
    "saw": _by(lambda problem: magnitudes(problem, 1)),
    "pivoted": _pivoted,
    "given": _by(lambda problem: -np.arange(len(problem.channels)) / len(problem.channels)),
    "l2": _by(lambda problem: magnitudes(problem, 2)),
    "variance": _by(variances),
}
"""Every order by its name on the command line; the first is the paper's default."""
