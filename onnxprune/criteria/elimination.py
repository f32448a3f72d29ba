"""Block backward elimination for one consumer, with lazy blocked downdates.

Let P = G^-1 and W the weights of the features that are left. Removing the block r of features and
refitting the rest raises the squared error by tr(W_r P_rr^-1 W_r^T) and leaves

    W <- W - W_r P_rr^-1 P_r:,    P <- P - P_:r P_rr^-1 P_r:

(the optimal brain surgeon of Hassibi and Stork 1992, for blocks). Doing that to all of P per
removal is bound by memory. As in LAPACK's pivoted Cholesky (dpstrf), P is therefore kept as of the
start of a panel and the removals are kept as thin factors. With P_rr = L L^T (derived here):

    Z_r = P_:r L^-T     so that P = P0 - Z Z^T
    Y_r = W_r L^-T      so that W = W0 - Y Z^T and the cost is |Y_r|^2

Only Q = W^T W enters the costs, so W itself is never formed: with V = W0^T Y and N = Y^T Y,
Q = Q0 - V Z^T - Z V^T + Z N Z^T. Each removal updates the diagonal blocks of P and Q for all
units; a full panel is flushed by matrix products, and the units that left are dropped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.linalg import factor, inverse_of

PANEL = 256
"""Columns of the thin factors before they are flushed: fits the cache, amortises the products."""


class BlockElimination:
    """Accumulator: the state of one consumer while units leave it one by one."""

    _used: int  # columns of the panel in use
    _present: NDArray[np.bool_]  # by position: has the unit not left since the panel began
    _Z: Matrix
    _V: Matrix
    _N: Matrix
    _inverse_blocks: Matrix  # the current diagonal blocks of P, by position
    _energy_blocks: Matrix  # the same of Q

    def __init__(self, gram: Matrix, weight: Matrix, block: int, panel: int = PANEL) -> None:
        """Starts with every unit present.

        Args:
            gram: positive definite, shape (units * block, units * block).
            weight: shape (outputs, units * block).
            block: features per unit.
            panel: columns of the thin factors before a flush; changes speed only.
        """
        self._block = block
        self._inverse = inverse_of(factor(gram, 0.0))  # P0
        self._energy: Matrix = weight.T @ weight  # Q0
        units = len(gram) // block
        self._units: IndexArray = np.arange(units)  # the unit at each position of P0
        self._position: IndexArray = np.arange(units)  # and back; -1 when it left P0
        self._width = max(panel // block, 1) * block
        self._start_panel()

    def costs(self) -> Vector:
        """The rise of the squared error for each unit, were it the next to leave.

        Returns:
            Array of the shape (units,) of the start, infinite for units that left.
        """
        result = np.full(len(self._position), np.inf)
        solved = np.linalg.solve(self._inverse_blocks, self._energy_blocks)
        cost = np.maximum(np.trace(solved, axis1=1, axis2=2), 0.0)
        result[self._units[self._present]] = cost[self._present]
        return result

    def remove(self, unit: int) -> None:
        """Takes a unit out and refits the others."""
        position = int(self._position[unit])
        rows = slice(position * self._block, (position + 1) * self._block)
        used, after = self._used, self._used + self._block
        Z, V, N = self._Z[:, :used], self._V[:, :used], self._N[:used, :used]
        own = Z[rows]
        column = self._inverse[rows] - own @ Z.T
        divide = inverse_triangle(self._symmetric(column[:, rows]))  # L^-1
        z = (divide @ column).T
        v = (divide @ (self._energy[rows] - own @ V.T)).T
        n = (divide @ (V[rows] - own @ N)).T
        n_own = divide @ self._energy_blocks[position] @ divide.T
        self._update_blocks(z, v - Z @ n, n_own)
        self._Z[:, used:after] = z
        self._V[:, used:after] = v
        self._N[:used, used:after] = n
        self._N[used:after, :used] = n.T
        self._N[used:after, used:after] = n_own
        self._used = after
        self._present[position] = False
        self._inverse_blocks[position] = np.eye(self._block)
        self._energy_blocks[position] = 0.0
        if self._used + self._block > self._width:
            self._flush()

    @staticmethod
    def _symmetric(matrix: Matrix) -> Matrix:
        return (matrix + matrix.T) / 2

    def _update_blocks(self, z: Matrix, x: Matrix, n: Matrix) -> None:
        """Downdates the diagonal blocks; x = W^T Y_r with the weights before this removal."""
        z_blocks = z.reshape(-1, self._block, self._block)
        x_blocks = x.reshape(-1, self._block, self._block)
        transposed = np.ascontiguousarray(z_blocks.transpose(0, 2, 1))
        self._inverse_blocks -= z_blocks @ transposed
        half = (x_blocks - z_blocks @ (n / 2)) @ transposed
        self._energy_blocks -= half + half.transpose(0, 2, 1)

    def _flush(self) -> None:
        """Applies the panel to P and Q and drops the rows and columns of units that left."""
        features = np.flatnonzero(np.repeat(self._present, self._block))
        Z = self._Z[features, : self._used]
        V = self._V[features, : self._used]
        half = V - Z @ (self._N[: self._used, : self._used] / 2)
        self._inverse = self._inverse.take(features, 0).take(features, 1)
        self._inverse -= Z @ Z.T
        self._energy = self._energy.take(features, 0).take(features, 1)
        product = half @ Z.T
        self._energy -= product
        self._energy -= product.T
        self._position[self._units[~self._present]] = -1
        self._units = self._units[self._present]
        self._position[self._units] = np.arange(len(self._units))
        self._start_panel()

    def _start_panel(self) -> None:
        count, block = len(self._units), self._block
        self._present = np.ones(count, dtype=bool)
        self._used = 0
        self._Z = np.zeros((count * block, self._width))
        self._V = np.zeros((count * block, self._width))
        self._N = np.zeros((self._width, self._width))
        diagonal = np.arange(count)
        shape = (count, block, count, block)
        self._inverse_blocks = self._inverse.reshape(shape)[diagonal, :, diagonal].copy()
        self._energy_blocks = self._energy.reshape(shape)[diagonal, :, diagonal].copy()


def inverse_triangle(matrix: Matrix) -> Matrix:
    """L^-1 of matrix = L L^T; for blocks so small that threads only wait for each other."""
    try:
        lower = np.asarray(np.linalg.cholesky(matrix), np.float64)
    except np.linalg.LinAlgError:
        lower = factor(matrix, 0.0)  # raises the ridge until it succeeds
    return np.asarray(np.linalg.inv(lower), np.float64)
