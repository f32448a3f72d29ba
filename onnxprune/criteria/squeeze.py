"""Squeezing Correlated Neurons: the channels that the others explain best go first.

After Ozen & Orailoglu (ECML PKDD 2020). The number of principal components that carry the
information of a layer tells how many channels it needs (see ``information``); which ones is told
by eliminating the channel with the largest multiple correlation,

    R_i^2 = 1 - 1 / (C_ii (C^-1)_ii),

until so many are left. Each elimination downdates C^-1, which equals inverting what is left
(derived here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix
from onnxprune.criteria.balance import fullest_parts
from onnxprune.criteria.joint_gram import joint_channel_covariance
from onnxprune.criteria.protocol import Moments
from onnxprune.criteria.reduction import DAMPING, error_curve
from onnxprune.layer_problem import GroupProblem
from onnxprune.linalg import factor, inverse_of, reciprocal
from onnxprune.ranking import Ranking

TIE = 1e-9
"""Relative difference that is rounding: of the last two units neither explains the other better."""

COMPACT = 64
"""Eliminations before the rows and columns of channels that left are dropped."""


def correlation_of(covariance: Matrix) -> Matrix:
    """Correlations, shape (units, units); zero rows for units that do not vary."""
    inverse = reciprocal(np.sqrt(np.diag(covariance)))
    correlation: Matrix = covariance * inverse[:, None] * inverse
    return correlation


@dataclass(frozen=True)
class Squeeze:
    """Keeps the units that the others explain least.

    Attributes:
        moments: "correlation" removes the unit with the largest R^2, "covariance" the one with the
            smallest variance C_ii (1 - R_i^2) left unexplained.
        damping: ridge of the inverse and of the error curve, relative to each unit's variance.
    """

    moments: Moments = "covariance"
    damping: float = DAMPING

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by reversed elimination."""
        order = self.elimination(joint_channel_covariance(problem), problem.parts)[::-1].copy()
        return Ranking(order=order, error=error_curve(problem, order, self.damping))

    def elimination(self, covariance: Matrix, parts: IndexArray) -> IndexArray:
        """The units in the order in which they leave; those that do not vary leave first.

        Args:
            covariance: positive semidefinite, shape (units, units).
            parts: shape (units,); the fullest parts lose units first. Ties lose the higher index.
        """
        correlation = correlation_of(covariance)
        variance = np.diag(covariance)
        weight = variance if self.moments == "covariance" else (variance > 0).astype(np.float64)
        np.fill_diagonal(correlation, 1.0)
        inverse = inverse_of(factor(correlation, self.damping))
        rows = np.arange(len(covariance))  # the unit of each row
        remaining = np.ones(len(rows), dtype=bool)
        removed = np.zeros(len(rows), dtype=np.int64)
        for step in range(len(rows)):
            if step % COMPACT == 0:
                left = remaining[rows]
                rows, inverse = rows[left], inverse[np.ix_(left, left)]
            unexplained = np.full(len(remaining), np.inf)
            unexplained[rows] = weight[rows] / np.diag(inverse)
            allowed = fullest_parts(remaining, parts)[::-1]
            least = float(unexplained[allowed].min())
            unit = int(allowed[np.argmax(unexplained[allowed] <= least * (1 + TIE))])
            removed[step], remaining[unit] = unit, False
            place = int(np.flatnonzero(rows == unit)[0])
            column = inverse[:, place] / np.sqrt(inverse[place, place])
            inverse -= np.outer(column, column)
            inverse[place, place] = 1.0  # it has left; nobody looks there
        return removed
