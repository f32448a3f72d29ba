"""What a criterion says of a channel group: in which order to keep its units, and at what price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Vector


@dataclass(frozen=True)
class Ranking:
    """The order in which a group's units are kept, and the price of every count.

    Attributes:
        order: permutation of range(units), most important first: the first k are the keep of size
            k. With balanced parts, every prefix whose length is a multiple of the number of parts
            has equal counts per part.
        error: shape (units + 1,); error[k] is the relative error of the consumers' outputs when
            the first k units are kept and the consumers are recovered: the sum over consumers of
            residual over variance of the output. error[units] = 0 and it never rises with k.
    """

    order: IndexArray
    error: Vector


def keep_of(ranking: Ranking, count: int) -> IndexArray:
    """The sorted units that survive when ``count`` of them are kept."""
    return np.sort(ranking.order[:count])
