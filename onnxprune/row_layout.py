"""How the rows of an activation follow from samples and positions, and which of them count.

A mask says which positions of a sample are more than padding. An activation of shape (samples,
positions, channels) has a row for each; others have them in another order, several for each (one
for every head), or merged into one axis. Of what counts, every sample gives up to as many rows as
are wanted, stratified as in ``sampling``; how far it is padded makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, IndexArray

SAMPLE, POSITION = -1, -2


@dataclass(frozen=True)
class RowLayout:
    """What the axes that make rows consist of.

    Attributes:
        factors: SAMPLE, POSITION, or the extent of something else, in the order in which rows
            follow each other, the last one fastest.
    """

    factors: tuple[int, ...]

    def counted(self, mask: Array) -> NDArray[np.bool_]:
        """Whether each row counts, shape (rows,).

        Args:
            mask: shape (samples, positions); positions count where it is not zero.
        """
        return self._spread(mask != 0)

    def drawn(self, mask: Array, points: int, uniforms: NDArray[np.float32]) -> IndexArray:
        """The rows that are taken of a batch, ascending for every sample.

        Args:
            mask: shape (samples, positions).
            points: the most rows of a sample.
            uniforms: at least as many numbers as ``points``, uniform on [0, 1).
        """
        counted = self.counted(mask)
        owner = self._spread(np.broadcast_to(np.arange(len(mask))[:, None], mask.shape))
        order = np.argsort(owner, kind="stable")
        rows = order[counted[order]]
        ends = np.cumsum(np.bincount(owner[rows], minlength=len(mask)))
        return np.concatenate(
            [_stratified(own, points, uniforms) for own in np.split(rows, ends[:-1])]
        )

    def _spread(self, values: Array) -> Array:
        """Values of shape (samples, positions) for every row."""
        known = dict(zip((SAMPLE, POSITION), values.shape, strict=True))
        if self.factors.index(POSITION) < self.factors.index(SAMPLE):
            values = values.T
        shape = [known.get(factor, 1) for factor in self.factors]
        full = [known.get(factor, factor) for factor in self.factors]
        return np.broadcast_to(values.reshape(shape), full).reshape(-1)


def _stratified(rows: IndexArray, points: int, uniforms: NDArray[np.float32]) -> IndexArray:
    """All of the rows, or one of every ``points`` equal parts of them."""
    if rows.size <= points:
        return rows
    places = (np.arange(points) + uniforms[:points].astype(np.float64)) * rows.size / points
    return rows[places.astype(np.int64)]
