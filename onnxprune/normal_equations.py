"""The normal equations of a consumer on some of its features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem, Targets
from onnxprune.linalg import Moments, centred, standardise


def features_of(entries: IndexArray, taps: int) -> IndexArray:
    """The features of some entries, entry by entry; shape (entries * taps,)."""
    features: IndexArray = (entries[:, None] * taps + np.arange(taps)).reshape(-1)
    return features


@dataclass(frozen=True)
class Equations:
    """The normal equations of the kept features, in units of their standard deviations.

    Attributes:
        problem: the consumer.
        features: the kept features, shape (kept,).
        moments: of the kept features.
        target_mean: mean of the targets, shape (outputs,).
    """

    problem: LayerProblem
    features: IndexArray
    moments: Moments
    target_mean: Vector

    def bias(self, weight: Matrix) -> Vector:
        """The best bias, shape (outputs,), of weights of shape (outputs, kept)."""
        return self.target_mean - weight @ self.moments.mean

    def residual(self, prior: Matrix) -> Matrix:
        """Scaled covariance of the kept features with what the prior leaves unexplained.

        (H_K - P0 C_KK) D^-1/2, written with weight differences to avoid cancellation.

        Args:
            prior: P0, shape (outputs, kept).
        """
        columns = np.append(self.features, len(self.problem.gram) - 1)
        weight, gram = self.problem.weight, self.problem.gram
        difference = weight.copy()
        difference[:, self.features] -= prior
        moved = np.flatnonzero(difference.any(axis=0))  # with the slice as prior: dropped ones
        cross = difference[:, moved] @ gram[np.ix_(moved, columns)]
        if self.problem.cross is not None:
            cross += self.problem.cross[:, columns] - weight @ gram[:, columns]
        own = gram[np.ix_(columns, columns)]
        return centred(cross, own) * self.moments.inverse_scale


def equations(problem: LayerProblem, features: IndexArray) -> Equations:
    """The normal equations of a consumer on some of its features, shape (kept,)."""
    columns = np.append(features, len(problem.gram) - 1)
    moments = standardise(problem.gram[np.ix_(columns, columns)])
    cross_mean = problem.weight @ problem.gram[:, -1]
    if problem.cross is not None:
        cross_mean = problem.cross[:, -1]
    return Equations(problem, features, moments, cross_mean / problem.gram[-1, -1])


def pooled(problem: LayerProblem) -> LayerProblem:
    """The problem on the rows to fit on and those to tune on together."""
    rows = problem.rows + problem.tune_rows
    share = problem.rows / rows
    gram = share * problem.gram + (1 - share) * problem.tune_gram
    targets = problem.targets
    if targets is not None and problem.tune_targets is not None:
        other = problem.tune_targets
        cross = share * targets.cross + (1 - share) * other.cross
        targets = Targets(cross, share * targets.second + (1 - share) * other.second)
    return replace(problem, gram=gram, targets=targets, rows=rows)
