"""Subspace Node Pruning: the order of a pivoted triangular transform of the channels.

With C = L D L^T the variables y = L^-1 x are uncorrelated, and dropping the last of them drops
the last original units (Offergeld et al., arXiv 2405.17506, the triangular transform). Pivoting
puts the unit with the largest conditional second moment D first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix
from onnxprune.criteria.reduction import DAMPING, error_curve, feature_table
from onnxprune.linalg import pivoted_ldl
from onnxprune.plan import GroupProblem, LayerProblem, Ranking


def channel_gram(layer: LayerProblem, channels: IndexArray) -> Matrix:
    """Uncentred Gram of a group's units in one consumer: the mean over taps and positions.

    Args:
        layer: the consumer.
        channels: the group's network-wide channel indices, shape (units,).

    Returns:
        Array of shape (units, units); zero rows for units the consumer does not read.
    """
    table = feature_table(layer, channels)
    total = np.zeros((len(channels), len(channels)))
    for features in table.T:
        present = np.flatnonzero(features >= 0)
        own = features[present]
        total[np.ix_(present, present)] += layer.gram[np.ix_(own, own)]
    total /= max(table.shape[1], 1)
    return total


def joint_channel_gram(problem: GroupProblem) -> Matrix:
    """Sum over consumers of C / tr(C), shape (units, units): every consumer has one vote."""
    units = len(problem.channels)
    joint = np.zeros((units, units))
    for layer in problem.consumers:
        gram = channel_gram(layer, problem.channels)
        trace = np.trace(gram)
        if trace > 0:
            joint += gram / trace
    return joint


@dataclass(frozen=True)
class Subspace:
    """Keeps the units that span most of the activations' second moment.

    It looks at activations only; the price of each count is the consumers' real error.

    Attributes:
        damping: ridge of the error curve, relative to each feature's variance.
    """

    damping: float = DAMPING

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by pivoted LDL of the joint channel Gram (arXiv 2405.17506)."""
        order, _ = pivoted_ldl(joint_channel_gram(problem), problem.parts)
        return Ranking(order=order, error=error_curve(problem, order, self.damping))
