"""Subspace Node Pruning: a triangular transform of the channels, most important first.

With C = L D L^T the variables y = L^-1 x are uncorrelated, and dropping the last of them drops
the last original units (Offergeld et al., arXiv 2405.17506, the triangular transform).
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.criteria.joint_gram import joint_channel_gram
from onnxprune.criteria.orders import ORDERS
from onnxprune.criteria.reduction import DAMPING, error_curve
from onnxprune.layer_problem import GroupProblem
from onnxprune.ranking import Ranking


@dataclass(frozen=True)
class Subspace:
    """Keeps the units that span most of the activations' second moment.

    It looks at activations only; the price of each count is the consumers' real error.

    Attributes:
        order: which unit comes first, in ``ORDERS``.
        damping: ridge of the error curve, relative to each feature's variance.
    """

    order: str = "zca"
    damping: float = DAMPING

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by the order's view of the joint channel Gram."""
        order = ORDERS[self.order](problem, joint_channel_gram(problem))
        return Ranking(order=order, error=error_curve(problem, order, self.damping))
