"""Orders that keep balanced parts at equal counts (grouped convolutions, attention heads)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import IndexArray, Vector


def balanced_order(scores: Vector, parts: IndexArray) -> IndexArray:
    """Units by falling score, taken in rounds: every round takes one unit of each part.

    Within a round the higher score comes first; ties go by index. With a single part this is
    the order by score.

    Args:
        scores: shape (units,).
        parts: shape (units,), the part of each unit.

    Returns:
        Permutation of range(units).
    """
    units = np.arange(len(scores))
    rounds = np.zeros(len(scores), dtype=np.int64)
    for part in np.unique(parts):
        members = np.flatnonzero(parts == part)
        by_score = members[np.lexsort((members, -scores[members]))]
        rounds[by_score] = np.arange(len(members))
    order: IndexArray = np.lexsort((units, -scores, rounds)).astype(np.int64)
    return order


def fullest_parts(remaining: NDArray[np.bool_], parts: IndexArray) -> IndexArray:
    """The units that may leave next: those in the parts with most units left.

    Args:
        remaining: boolean array of shape (units,), the units that have not left.
        parts: shape (units,).

    Returns:
        Indices of units.
    """
    left = np.flatnonzero(remaining)
    counts = np.bincount(parts[left], minlength=1)[parts[left]]
    allowed: IndexArray = left[counts == counts.max()]
    return allowed
