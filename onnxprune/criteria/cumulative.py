"""What the channels that are kept leave unexplained of all channels, for every count.

With C = L D L^T of the joint channel Gram in the order of a ranking, D_j is the second moment of
channel j that the channels before it cannot explain, and v_i = sum_{j >= i} D_j / sum_j D_j falls
from 1: Subspace Node Pruning cuts every channel with v_i below one number for the whole network
(Offergeld et al., arXiv 2405.17506, layer-wise ratios).
"""

from __future__ import annotations

import numpy as np

from onnxprune.arrays import IndexArray, Vector
from onnxprune.criteria.subspace import joint_channel_gram
from onnxprune.linalg import DEPENDENT, factor
from onnxprune.plan import GroupProblem


def unexplained_variance(problem: GroupProblem, order: IndexArray) -> Vector:
    """V of the first unit that is cut, when so many units of an order are kept.

    Args:
        problem: the group; each of its consumers has one vote, as in the criterion ``snp``.
        order: permutation of range(units), most important first.

    Returns:
        Array of shape (units + 1,): never rising, from 1 at no unit kept (from 0 where nothing
        reads the group) to 0 at all of them.
    """
    gram = joint_channel_gram(problem)[np.ix_(order, order)]
    scale = np.sqrt(np.diag(gram))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    correlation = gram * inverse[:, None] * inverse
    np.fill_diagonal(correlation, 1.0)
    pivots = (np.diag(factor(correlation, DEPENDENT)) * scale) ** 2
    behind = np.append(np.cumsum(pivots[::-1])[::-1], 0.0)
    return behind / (behind[0] or 1.0)
