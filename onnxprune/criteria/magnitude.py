"""Score criteria, kept as baselines: weight magnitude, variance, random.

Each ranks units by one score; only the price of a count looks at the consumers' error.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import Matrix, Vector
from onnxprune.criteria.balance import balanced_order
from onnxprune.criteria.reduction import DAMPING, error_curve, feature_table
from onnxprune.layer_problem import GroupProblem, LayerProblem
from onnxprune.linalg import standardise
from onnxprune.ranking import Ranking


def rank_by_score(problem: GroupProblem, scores: Vector) -> Ranking:
    """The ranking of given scores, shape (units,); units that are never active come last."""
    alive = np.sum([activity(layer, problem) for layer in problem.consumers], axis=0) > 0
    order = balanced_order(np.where(alive, scores, -1.0), problem.parts)
    return Ranking(order=order, error=error_curve(problem, order, DAMPING))


def per_unit(values: Vector, layer: LayerProblem, problem: GroupProblem) -> Vector:
    """Mean of a non-negative value per feature over each unit's features.

    Args:
        values: shape (features,).
        layer: the consumer the features belong to.
        problem: the group.

    Returns:
        Array of shape (units,); 0 for units without a feature.
    """
    table = feature_table(layer, problem.channels)
    found = np.where(table >= 0, values[table], 0.0).sum(axis=1)
    mean: Vector = found / np.maximum((table >= 0).sum(axis=1), 1)
    return mean


def activity(layer: LayerProblem, problem: GroupProblem) -> Vector:
    """Uncentred second moment of each unit in a consumer, shape (units,)."""
    return per_unit(np.diag(layer.gram)[:-1], layer, problem)


def with_mean_one(values: Vector) -> Vector:
    """Values over their mean, so that no source of scores dominates another; zeros stay."""
    mean = float(values.mean())
    return values / mean if mean > 0 else values


def norms(rows: Matrix, power: int) -> Vector:
    """The 1- or 2-norm of each row, shape (rows,)."""
    norm: Vector = np.linalg.norm(rows, ord=power, axis=1)
    return norm


def magnitudes(problem: GroupProblem, power: int) -> Vector:
    """The norm of the weights that produce each unit, shape (units,).

    Normalised per producer to mean 1 and summed over producers; where no producer is known, the
    same of the weights that consume it.

    Args:
        problem: the group.
        power: 1 or 2, the norm.
    """
    scores = np.zeros(len(problem.channels))
    for weight in problem.producer_weights:
        scores += with_mean_one(norms(weight, power))
    if not problem.producer_weights:
        for layer in problem.consumers:
            per_feature = np.sum(np.abs(layer.weight[:, :-1]) ** power, axis=0)
            scores += with_mean_one(per_unit(per_feature, layer, problem) ** (1 / power))
    return scores


def variances(problem: GroupProblem) -> Vector:
    """The mean variance of each unit's features, shape (units,).

    Normalised per consumer to mean 1 and summed over consumers.
    """
    scores = np.zeros(len(problem.channels))
    for layer in problem.consumers:
        variance = standardise(layer.gram).scale ** 2
        scores += with_mean_one(per_unit(variance, layer, problem))
    return scores


@dataclass(frozen=True)
class Magnitude:
    """Keeps the units with the largest weights (Li et al., arXiv 1608.08710, for power 1).

    Attributes:
        power: 1 or 2, the norm.
    """

    power: int = 1

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by the norm of the weights."""
        return rank_by_score(problem, magnitudes(problem, self.power))


@dataclass(frozen=True)
class Variance:
    """Keeps the units that vary most."""

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by the centred variance of the activations."""
        return rank_by_score(problem, variances(problem))


@dataclass(frozen=True)
class Random:
    """A random order, different for every group, the same for the same seed.

    Attributes:
        seed: seeds the order together with the group's name.
    """

    seed: int = 0

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks at random."""
        rng = np.random.default_rng([self.seed, zlib.crc32(problem.name.encode())])
        order = balanced_order(rng.random(len(problem.channels)), problem.parts)
        return Ranking(order=order, error=error_curve(problem, order, DAMPING))
