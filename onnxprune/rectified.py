"""Targets that only count where the activation behind them does.

A rectifier makes the same of all negative sums: where the original's sum t = y + skip is negative,
any negative sum of the pruned network will do, and least squares need not spend weights on its
value. With p what the pruned network's sum is, the target is

    z = t where t > 0,  min(p, 0) elsewhere

and likewise above the upper end of a Clip. Fitting p to z is a convex problem whose targets depend
on the solution. A step of majorisation and minimisation solves least squares for the z of the
solution there is; a few steps from the linear solution, each longer than that, are taken on all
rows. Stopping early leaves the rest to the linear solution, whose ridge was chosen on images not
fitted on.

Reconstruction through the activation follows arXiv 1505.06798, which relaxes it with auxiliary
variables; the one-sided targets and the steps are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array
from onnxprune.stages import Interval


def missed(target: Array, made: Array, active: Interval) -> Array:
    """What lacks, where more or less of it would make a difference; of the arguments' shape.

    Args:
        target: sums in the original network.
        made: the same in the pruned one.
        active: where the activation is not constant.
    """
    low, high = active
    wanted = np.where(target <= low, np.minimum(made, np.float32(low)), target)
    wanted = np.where(target >= high, np.maximum(made, np.float32(high)), wanted)
    lacks: Array = wanted - made
    return lacks


@dataclass
class Misses:
    """Accumulator: sums over rows of what lacks, e, beside the kept features x'.

    Attributes:
        cross: of e x'^T, the constant 1 last, shape (parts, outputs, kept features + 1).
        rows: how many.
    """

    cross: NDArray[np.float64]
    rows: int

    @classmethod
    def of(cls, x: Array, lacks: Array) -> Misses:
        """The sums of rows of shapes (parts, rows, features) and (parts, rows, outputs)."""
        cross = lacks.transpose(0, 2, 1) @ x
        total = lacks.sum(axis=1, dtype=np.float64)
        return cls(
            np.concatenate([cross, total[:, :, None]], axis=2).astype(np.float64), x.shape[1]
        )

    def add(self, other: Misses) -> None:
        """Adds what other rows have summed to."""
        self.cross += other.cross
        self.rows += other.rows

    @property
    def mean(self) -> NDArray[np.float64]:
        """E[e x'^T], of the shape of ``cross``."""
        return self.cross / self.rows
