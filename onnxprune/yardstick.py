"""How far a consumer's output moves, from moments alone: the measure of every recovery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.linalg import fitted_weight, quadratic, standardise

TARGET_RIDGE = 1e-4
"""Relative ridge of the full-width fit that stands for given targets."""


VISIBLE = 1e-12
"""An output's variance below this part of its second moment is rounding: it is constant."""


def target_weight(weight: Matrix, gram: Matrix, cross: Matrix | None) -> Matrix:
    """The full-width linear map that errors are measured against.

    It is W, or where targets are given their ridged full-width fit: the part of such targets that
    is not linear in x is the same for every solution and is left out of the errors.

    Args:
        weight: W with the bias last, shape (outputs, features + 1).
        gram: shape (features + 1, features + 1).
        cross: E[y x^T] over the same images, shape (outputs, features + 1), or None.

    Returns:
        Array of shape (outputs, features + 1), the bias last.
    """
    if cross is None:
        return weight
    moments = standardise(gram)
    fitted = fitted_weight(weight, gram, cross, moments, TARGET_RIDGE)
    return np.column_stack([fitted, cross[:, -1] / gram[-1, -1] - fitted @ moments.mean])


@dataclass(frozen=True)
class Yardstick:
    """Measures solutions against a full-width linear map on one Gram matrix.

    Attributes:
        target: shape (outputs, features + 1), the bias last.
        gram: shape (features + 1, features + 1).
        variance: variance of the target, summed over outputs; 1 if there is none.
    """

    target: Matrix
    gram: Matrix
    variance: float

    def error(self, features: IndexArray, weight: Matrix, bias: Vector) -> float:
        """E|target x - (W' x_K + b')|^2 over the variance of the target.

        Args:
            features: the kept features K, shape (kept,).
            weight: W', shape (outputs, kept).
            bias: b', shape (outputs,).
        """
        difference = self.target.copy()
        difference[:, features] -= weight
        difference[:, -1] -= bias
        return quadratic(difference, self.gram) / float(self.gram[-1, -1] * self.variance)


def yardstick(target: Matrix, gram: Matrix) -> Yardstick:
    """The yardstick of a full-width map, shape (outputs, features + 1), on a Gram matrix."""
    linear = target[:, :-1]
    mean = linear @ gram[:-1, -1] / gram[-1, -1]
    second = quadratic(linear, gram[:-1, :-1]) / gram[-1, -1]
    variance = second - float(mean @ mean)
    return Yardstick(target, gram, variance if variance > VISIBLE * second else 1.0)
