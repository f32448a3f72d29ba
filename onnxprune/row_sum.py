"""Gram matrices of rows that come a few at a time.

A product of few rows writes more than it multiplies, for the matrix is of the width of the rows
whatever their number. So rows wait until there are as many as features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.blas_threads import threads_for
from onnxprune.gram import Gram


class RowSum:
    """Accumulator: the Gram of rows, one for each part of a grouped consumer.

    Args:
        parts: number of independent Grams.
        features: features of each, without the constant.
    """

    def __init__(self, parts: int, features: int) -> None:
        self._gram = Gram(parts, features)
        self._waiting = np.empty((parts, 0, features + 1), np.float32)
        self._count = 0

    def add(self, rows: NDArray[np.floating[Any]]) -> None:
        """Adds rows, an array of shape (parts, rows, features + 1), the constant last."""
        parts, count, width = rows.shape
        if self._count + count > self._waiting.shape[1]:
            self._multiply()
            if count > self._waiting.shape[1]:
                self._waiting = np.empty((parts, max(count, width), width), np.float32)
        self._waiting[:, self._count : self._count + count] = rows
        self._count += count

    def gram(self) -> Gram:
        """The Gram of all rows so far."""
        self._multiply()
        return self._gram

    def _multiply(self) -> None:
        if not self._count:
            return
        rows = self._waiting[:, : self._count]
        with threads_for(rows.shape[2]):
            # one by one: BLAS does half the work where it sees that F^T F is symmetric
            self._gram.add(np.stack([part.T @ part for part in rows]))
        self._count = 0
