"""What a consumer loses that cannot be refitted: the energy of what is left out.

Without new weights the error of removing the features R is |sum_R W_r x_r|^2 on average. It is a
sum over pairs of units, A_ij = tr(W_i G_ij W_j^T): a unit may take back what others lost.
"""

from __future__ import annotations

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector


def pairwise_loss(gram: Matrix, weight: Matrix, block: int) -> Matrix:
    """A of the loss sum_ij A_ij over the units removed, shape (units, units).

    Args:
        gram: E[x x^T], shape (units * block, units * block).
        weight: shape (outputs, units * block).
        block: features per unit.
    """
    units = len(gram) // block
    energy = (weight.T @ weight) * gram
    pairs: Matrix = energy.reshape(units, block, units, block).sum(axis=(1, 3))
    return pairs


def loss_curve(pairs: Matrix, order: IndexArray) -> Vector:
    """The loss with the first k units of an order kept, shape (units + 1,)."""
    ordered = pairs[np.ix_(order, order)]
    # A unit that leaves adds its own entry, and twice those with the units that left before it.
    behind = np.triu(ordered, 1).sum(axis=1)
    loss = np.cumsum((np.diag(ordered) + 2 * behind)[::-1])[::-1]
    return np.append(loss, 0.0)


class FixedElimination:
    """Accumulator as ``BlockElimination``, for a consumer whose weights stay as they are."""

    def __init__(self, gram: Matrix, weight: Matrix, block: int) -> None:
        """Starts with every unit present; the arguments are those of ``pairwise_loss``."""
        self._pairs = pairwise_loss(gram, weight, block)
        self._cost = np.diag(self._pairs).copy()

    def costs(self) -> Vector:
        """The rise of the loss for each unit, were it the next to leave; negative if it falls."""
        return self._cost.copy()

    def remove(self, unit: int) -> None:
        """Takes a unit out."""
        self._cost += 2 * self._pairs[unit]
        self._cost[unit] = np.inf
