"""The accumulator of uncentred second moments: sums of x x^T with a constant 1 last in x."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, IndexArray, Matrix


class Gram:
    """A running sum of Gram matrices, one for each part of a grouped consumer.

    Batches arrive in float32 and are summed in float64, so that thousands of them lose nothing.

    Args:
        parts: number of independent Grams.
        features: features of each, without the constant.

    Attributes:
        sums: array of shape (parts, features + 1, features + 1).
    """

    def __init__(self, parts: int, features: int) -> None:
        self.sums: NDArray[np.float64] = np.zeros((parts, features + 1, features + 1))

    @classmethod
    def of(cls, sums: Array) -> Gram:
        """A sum that was made before.

        Raises:
            ValueError: it is none: not float64, not square, or not finite.
        """
        if sums.ndim != 3 or sums.shape[1] != sums.shape[2] or sums.dtype != np.float64:
            raise ValueError(f"moments of shape {sums.shape} and type {sums.dtype}")
        if not np.isfinite(sums).all():
            raise ValueError("moments that are not finite")
        gram = cls(sums.shape[0], sums.shape[1] - 1)
        gram.add(sums)
        return gram

    def add(self, batch: NDArray[np.floating[Any]]) -> None:
        """Adds one batch's Grams, an array of shape (parts, features + 1, features + 1)."""
        if batch.shape != self.sums.shape:  # broadcasting would hide the mistake
            raise ValueError(f"a batch of shape {batch.shape} for sums of {self.sums.shape}")
        self.sums += batch

    def merge(self, other: Gram) -> None:
        """Adds what another accumulator has seen; exact to rounding."""
        self.add(other.sums)

    @property
    def rows(self) -> int:
        """How many rows each part has seen: the constant times itself, summed."""
        return round(float(self.sums[0, -1, -1]))

    def part(self, index: int = 0) -> Matrix:
        """E[x x^T] of one part, of shape (features + 1, features + 1), exactly symmetric.

        A matrix product may round entry (i, j) and entry (j, i) differently.
        """
        if not self.rows:
            raise ValueError("the mean of no rows")
        sums: Matrix = self.sums[index]
        return (sums + sums.T) / (2.0 * self.rows)

    def mean(self) -> Array:
        """E[x x^T] of all parts, shape (parts, features + 1, features + 1); see ``part``."""
        return np.stack([self.part(index) for index in range(len(self.sums))])

    def reordered(self, order: IndexArray) -> Gram:
        """The Gram of x[order]: the features, constant included, in another order."""
        result = Gram(self.sums.shape[0], self.sums.shape[1] - 1)
        result.sums = self.sums[:, order[:, None], order]
        return result
