"""Recovery of the papers: channels predict channels, and every tap's weights follow.

A consumer reads channels x; the kept ones x_K predict all of them, x ~ M x_K, and the weights of
every tap become W M. Nothing is ridged, nothing is chosen, and no patch is looked at. Where the
targets of a pruned network are given, M predicts the channels of the original one from those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import DEPENDENT, centred, factor, reciprocal, solve_right
from onnxprune.normal_equations import equations, features_of
from onnxprune.reconstruction import solution
from onnxprune.recovery import NoRecovery, Solution


@dataclass(frozen=True)
class Triangular:
    """Least squares through zero, as Subspace Node Pruning recovers (arXiv 2405.17506).

    With C = L L^T of the uncentred moments, the kept channels first, W' = (W L)_:k (L^-1)_kk, which
    is W_K + W_D C_DK C_KK^-1. The bias stays.
    """

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers the consumer; all channels give its own weights, unless targets differ."""
        if problem.cross is None and len(keep) == len(problem.channels):
            return NoRecovery().solve(problem, keep)
        features = features_of(keep, problem.taps)
        bias = problem.weight[:, -1].copy()
        weight = _through_zero(_cross(problem), problem.gram, features, bias)
        return solution(problem, keep, weight, bias, "least squares by channel, through zero")


@dataclass(frozen=True)
class Affine:
    """Least squares with the best bias: the linear transformation of the next layer.

    W' = W_K + W_D B and b' = b + W_D (mean_D - B mean_K) with B = C_DK C_KK^-1 of the covariances
    (Ozen & Orailoglu, Squeezing Correlated Neurons, ECML PKDD 2020; the form is derived here).
    """

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers the consumer; all channels give its own weights, unless targets differ."""
        if problem.cross is None and len(keep) == len(problem.channels):
            return NoRecovery().solve(problem, keep)
        system = equations(problem, features_of(keep, problem.taps))
        columns = np.append(system.features, len(problem.gram) - 1)
        covariance = centred(_cross(problem)[:, columns], problem.gram[np.ix_(columns, columns)])
        inverse = system.moments.inverse_scale
        lower = factor(system.moments.correlation, DEPENDENT)
        weight = solve_right(lower, covariance * inverse) * inverse
        return solution(
            problem, keep, weight, system.bias(weight), "least squares by channel, with bias"
        )


def _cross(problem: LayerProblem) -> Matrix:
    """E[y x^T], shape (outputs, features + 1): of given targets, else of the consumer's own."""
    own: Matrix = problem.weight @ problem.gram if problem.cross is None else problem.cross
    return own


def _through_zero(cross: Matrix, gram: Matrix, features: IndexArray, bias: Vector) -> Matrix:
    """The weights that predict y - b from the kept features alone, shape (outputs, kept)."""
    count = gram[-1, -1]
    own = gram[np.ix_(features, features)] / count
    wanted = (cross[:, features] - np.outer(bias, gram[-1, features])) / count
    inverse = reciprocal(np.sqrt(np.diag(own)))
    scaled = own * inverse[:, None] * inverse
    np.fill_diagonal(scaled, 1.0)
    weight: Matrix = solve_right(factor(scaled, DEPENDENT), wanted * inverse) * inverse
    return weight
