"""What a group's channels carry that fewer of them would not: one curve per count.

Subspace Node Pruning cuts the channels with v_i = sum_{j >= i} D_j / sum_j D_j below one number p
for the whole network, where C = L D L^T of the joint channel Gram in the order of a ranking: D_j is
the second moment of channel j that those before it leave unexplained (Offergeld et al., arXiv
2405.17506, layer-wise ratios). Squeezing Correlated Neurons keeps as many channels as there are
principal components that carry the share tau of the variance (Ozen & Orailoglu, ECML PKDD 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.criteria.joint_gram import joint_channel_covariance, joint_channel_gram
from onnxprune.criteria.protocol import Moments
from onnxprune.criteria.squeeze import correlation_of
from onnxprune.layer_problem import GroupProblem
from onnxprune.linalg import DEPENDENT, factor, reciprocal


@dataclass(frozen=True)
class Spectrum:
    """How the variance of a group's channels is spread, joined over its consumers.

    Attributes:
        pivots: D of L D L^T in the order in which channels are kept: the second moment of each
            that the ones before it leave unexplained; shape (channels,).
        components: variances of the principal components, falling, shape (channels,).
    """

    pivots: Sequence[float]
    components: Sequence[float]

    @property
    def cumulative_variance(self) -> Vector:
        """The share v of the sum of D that every count does not keep, shape (channels + 1,)."""
        return behind(np.asarray(self.pivots, np.float64))

    def needed(self, unexplained: float) -> int:
        """How many principal components leave at most this share of the variance unexplained.

        Args:
            unexplained: the share, not negative.
        """
        return int(np.argmax(behind(np.asarray(self.components, np.float64)) <= unexplained))


def pivots(problem: GroupProblem, order: IndexArray) -> Vector:
    """D of C = L D L^T, shape (units,), in the order given.

    Args:
        problem: the group.
        order: permutation of range(units), most important first.
    """
    gram = joint_channel_gram(problem)[np.ix_(order, order)]
    scale = np.sqrt(np.diag(gram))
    inverse = reciprocal(scale)
    correlation = gram * inverse[:, None] * inverse
    np.fill_diagonal(correlation, 1.0)
    found: Vector = (np.diag(factor(correlation, DEPENDENT)) * scale) ** 2
    return found


def components(problem: GroupProblem, moments: Moments) -> Vector:
    """Variances of the principal components, falling, shape (units,), never negative."""
    matrix: Matrix = joint_channel_covariance(problem)
    if moments == "correlation":
        matrix = correlation_of(matrix)
    found: Vector = np.maximum(np.linalg.eigvalsh(matrix)[::-1], 0.0)
    return found


def behind(parts: Vector) -> Vector:
    """The share of a sum that lies behind every count of its parts.

    Args:
        parts: non-negative, shape (units,).

    Returns:
        Array of shape (units + 1,), never rising, from 1 (from 0 where all parts are) to 0.
    """
    total = np.append(np.cumsum(parts[::-1])[::-1], 0.0)
    return total / (total[0] or 1.0)
