"""How far a consumer's output moves, from moments alone: the measure of every recovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem, Targets
from onnxprune.linalg import quadratic

VISIBLE = 1e-12
"""An output's variance below this part of its second moment is rounding: it is constant."""


class Yardstick(Protocol):
    """Measures solutions on one Gram matrix."""

    def error(self, features: IndexArray, weight: Matrix, bias: Vector) -> float:
        """E|y - (W' x_K + b')|^2 over the variance of the targets y.

        Args:
            features: the kept features K, shape (kept,).
            weight: W', shape (outputs, kept).
            bias: b', shape (outputs,).
        """
        ...


@dataclass(frozen=True)
class OwnOutput:
    """Targets are what the consumer's own weights make of all features.

    Attributes:
        weight: shape (outputs, features + 1), the bias last.
        gram: shape (features + 1, features + 1).
        variance: variance of the targets, summed over outputs; 1 if there is none.
    """

    weight: Matrix
    gram: Matrix
    variance: float

    @classmethod
    def of(cls, weight: Matrix, gram: Matrix) -> OwnOutput:
        """The yardstick of weights on a Gram matrix."""
        linear = weight[:, :-1]
        mean = linear @ gram[:-1, -1] / gram[-1, -1]
        second = quadratic(linear, gram[:-1, :-1]) / gram[-1, -1]
        return cls(weight, gram, _variance(second, mean))

    def error(self, features: IndexArray, weight: Matrix, bias: Vector) -> float:
        """See ``Yardstick``; the difference of weights is measured, so that nothing cancels."""
        difference = self.weight.copy()
        difference[:, features] -= weight
        difference[:, -1] -= bias
        return quadratic(difference, self.gram) / float(self.gram[-1, -1] * self.variance)


@dataclass(frozen=True)
class GivenTargets:
    """Targets are given by their moments.

    Attributes:
        targets: the moments.
        gram: shape (features + 1, features + 1).
        variance: variance of the targets, summed over outputs; 1 if there is none.
    """

    targets: Targets
    gram: Matrix
    variance: float

    @classmethod
    def of(cls, targets: Targets, gram: Matrix) -> GivenTargets:
        """The yardstick of targets on the Gram matrix of the same rows."""
        count = float(gram[-1, -1])
        mean = targets.cross[:, -1] / count
        return cls(targets, gram, _variance(targets.second / count, mean))

    def error(self, features: IndexArray, weight: Matrix, bias: Vector) -> float:
        """See ``Yardstick``; the part of the targets that is not linear in x is counted."""
        columns = np.append(features, len(self.gram) - 1)
        both = np.column_stack([weight, bias])
        gram = self.gram[np.ix_(columns, columns)]
        explained = 2.0 * float(np.vdot(both, self.targets.cross[:, columns]))
        rest = self.targets.second - explained + quadratic(both, gram)
        return max(rest, 0.0) / float(self.gram[-1, -1] * self.variance)


def fit_yardstick(problem: LayerProblem) -> Yardstick:
    """Measures a consumer's solutions on the rows they are fitted on."""
    return _yardstick(problem.weight, problem.gram, problem.targets)


def tune_yardstick(problem: LayerProblem) -> Yardstick:
    """Measures a consumer's solutions on other rows."""
    return _yardstick(problem.weight, problem.tune_gram, problem.tune_targets)


def sliced_error(problem: LayerProblem, features: IndexArray, own: Matrix) -> float:
    """How far a consumer moves on other rows if its own weights are only sliced.

    Args:
        problem: the consumer.
        features: the kept features K, shape (kept,).
        own: its weights of these features, the bias last, shape (outputs, kept + 1).
    """
    return tune_yardstick(problem).error(features, own[:, :-1], own[:, -1])


def _yardstick(weight: Matrix, gram: Matrix, targets: Targets | None) -> Yardstick:
    return OwnOutput.of(weight, gram) if targets is None else GivenTargets.of(targets, gram)


def _variance(second: float, mean: Vector) -> float:
    variance = second - float(mean @ mean)
    return variance if variance > VISIBLE * second else 1.0
