"""Recovery that merges channels: each dropped one is taken for the kept one it resembles most.

As in model folding (arXiv 2502.10216), the consumer's weights of a cluster are summed, and what
merging does to the size of the activations is repaired afterwards (REPAIR, arXiv 2211.08403): every
output gets its mean and variance back. Folding also replaces the weights that make the cluster by
their mean. A recovery changes consumers only, so here the kept channel stands for its cluster, and
clusters are formed by what the channels carry, not by the weights that make them (derived here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import reciprocal
from onnxprune.normal_equations import equations, features_of
from onnxprune.reconstruction import channel_gram, mixed_in, solution
from onnxprune.recovery import NoRecovery, Solution


def nearest(gram: Matrix, keep: IndexArray) -> Matrix:
    """Which kept entry is nearest to each dropped one, by E[(x_d - x_k)^2].

    Args:
        gram: uncentred second moments of the entries, shape (entries, entries).
        keep: sorted, may be empty.

    Returns:
        Array of shape (dropped, kept) with a single 1 in every row; ties go to the first.
    """
    drop = np.setdiff1d(np.arange(len(gram)), keep)
    mix = np.zeros((len(drop), len(keep)))
    if len(keep):
        distance = gram[keep, keep] - 2 * gram[np.ix_(drop, keep)]
        mix[np.arange(len(drop)), distance.argmin(axis=1)] = 1.0
    return mix


def deviations(weight: Matrix, gram: Matrix) -> Vector:
    """Standard deviation of every output, shape (outputs,).

    Args:
        weight: shape (outputs, features).
        gram: shape (features + 1, features + 1), the constant last.
    """
    second = gram[:-1, :-1] / gram[-1, -1]
    mean = gram[:-1, -1] / gram[-1, -1]
    variance = np.einsum("of,fg,og->o", weight, second, weight, optimize=True)
    spread: Vector = np.sqrt(np.maximum(variance - (weight @ mean) ** 2, 0.0))
    return spread


@dataclass(frozen=True)
class Merging:
    """Sums the weights of merged channels and repairs each output's mean and variance.

    Attributes:
        largest: factor up to which an output that has lost its variance is scaled.
    """

    largest: float = 10.0

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers the consumer by merging the dropped channels into the kept ones."""
        if len(keep) == len(problem.channels):
            return NoRecovery().solve(problem, keep)
        features = features_of(keep, problem.taps)
        weight = mixed_in(problem, keep, nearest(channel_gram(problem), keep))
        columns = np.append(features, len(problem.gram) - 1)
        before = deviations(problem.weight[:, :-1], problem.gram)
        after = deviations(weight, problem.gram[np.ix_(columns, columns)])
        scale = np.where(after > 0, before * reciprocal(after), 1.0)
        weight = weight * np.minimum(scale, self.largest)[:, None]
        bias = equations(problem, features).bias(weight)
        return solution(problem, keep, weight, bias, "merged and repaired")
