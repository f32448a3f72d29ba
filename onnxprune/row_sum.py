"""Second moments of rows that come a few at a time.

A product of few rows writes more than it multiplies, for the matrix is of the width of the rows
whatever their number. So rows wait until there are as many as features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.blas_threads import threads_for
from onnxprune.gram import Gram


@dataclass
class Moments:
    """Sums over rows x and targets y beside them, the constant 1 last in x.

    Attributes:
        gram: of x x^T, shape (parts, features + 1, features + 1).
        cross: of y x^T, shape (parts, outputs, features + 1).
        second: of |y|^2, shape (parts,).
    """

    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    second: NDArray[np.float64]

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return round(float(self.gram[0, -1, -1]))

    @property
    def finite(self) -> bool:
        """Whether no feature and no target was infinite or not a number."""
        gram = np.diagonal(self.gram, axis1=1, axis2=2)
        return bool(np.isfinite(gram).all() and np.isfinite(self.second).all())

    def mean(self) -> Moments:
        """The moments of one row; Grams exactly symmetric."""
        gram = (self.gram + self.gram.transpose(0, 2, 1)) / (2 * self.rows)
        return Moments(gram, self.cross / self.rows, self.second / self.rows)


class RowSum:
    """Accumulator: the moments of rows, and of targets beside them.

    Args:
        parts: number of independent problems, each with rows of its own.
        features: features of a row.
        outputs: targets beside it.
    """

    def __init__(self, parts: int, features: int, outputs: int = 0) -> None:
        self._sums = Moments(
            np.zeros((parts, features + 1, features + 1)),
            np.zeros((parts, outputs, features + 1)),
            np.zeros(parts),
        )
        self._x = np.ones((parts, 0, features + 1), np.float32)
        self._y = np.empty((parts, 0, outputs), np.float32)
        self._count = 0

    def add(self, x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]] | None = None) -> None:
        """Adds rows.

        Args:
            x: shape (parts, rows, features), without the constant.
            y: shape (parts, rows, outputs); None for no targets.
        """
        count = x.shape[1]
        if self._count + count > self._x.shape[1]:
            self._multiply()
            self._make_room(count)
        place = slice(self._count, self._count + count)
        self._x[:, place, :-1] = x
        if y is not None:
            self._y[:, place] = y
        self._count += count

    def moments(self) -> Moments:
        """The moments of all rows so far."""
        self._multiply()
        return self._sums

    def gram(self) -> Gram:
        """The Gram of all rows so far."""
        sums = self.moments().gram
        gram = Gram(len(sums), sums.shape[1] - 1)
        gram.sums = sums
        return gram

    def _make_room(self, count: int) -> None:
        parts, room, width = self._x.shape
        if count > room:
            room = max(count, width)
            self._x = np.ones((parts, room, width), np.float32)
            self._y = np.empty((parts, room, self._y.shape[2]), np.float32)

    def _multiply(self) -> None:
        """Adds the products of what waits."""
        if not self._count:
            return
        sums = self._sums
        # what is not finite shows in the result
        with threads_for(self._x.shape[2]), np.errstate(invalid="ignore", over="ignore"):
            for part in range(len(self._x)):
                x, y = self._x[part, : self._count], self._y[part, : self._count]
                sums.gram[part] += (
                    x.T @ x
                )  # BLAS does half the work: it sees that this is symmetric
                sums.cross[part] += y.T @ x
                sums.second[part] += np.einsum("rn,rn->", y, y, dtype=np.float64)
        self._count = 0
