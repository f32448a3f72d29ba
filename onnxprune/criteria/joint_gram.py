"""Second moments of a group's units, over all consumers that read them.

Every consumer has one vote: sum_b C_b / tr(C_b) over the branches b that units tied by skip
connections are read by (for Subspace Node Pruning, arXiv 2405.17506, with joint importances).
"""

from __future__ import annotations

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.criteria.reduction import feature_table
from onnxprune.layer_problem import GroupProblem, LayerProblem
from onnxprune.linalg import DEAD_VARIANCE


def channel_gram(layer: LayerProblem, channels: IndexArray) -> Matrix:
    """Uncentred Gram of a group's units in one consumer: the mean over taps and positions.

    Args:
        layer: the consumer.
        channels: the group's network-wide channel indices, shape (units,).

    Returns:
        Array of shape (units, units); zero rows for units the consumer does not read.
    """
    return _mean_over_taps(layer, channels, np.zeros(len(layer.gram) - 1))


def channel_covariance(layer: LayerProblem, channels: IndexArray) -> Matrix:
    """The same without the means; what does not vary beyond rounding has zero rows.

    Args:
        layer: the consumer.
        channels: the group's network-wide channel indices, shape (units,).
    """
    mean = layer.gram[:-1, -1] / np.sqrt(layer.gram[-1, -1])
    covariance = _mean_over_taps(layer, channels, mean)
    second = np.diag(channel_gram(layer, channels))
    varies = np.diag(covariance) > DEAD_VARIANCE * second
    return covariance * np.outer(varies, varies)


def joint_channel_gram(problem: GroupProblem) -> Matrix:
    """Sum over consumers of C / tr(C), shape (units, units)."""
    return _joint([channel_gram(layer, problem.channels) for layer in problem.consumers], problem)


def joint_channel_covariance(problem: GroupProblem) -> Matrix:
    """The same of centred moments, shape (units, units)."""
    own = [channel_covariance(layer, problem.channels) for layer in problem.consumers]
    return _joint(own, problem)


def _mean_over_taps(layer: LayerProblem, channels: IndexArray, mean: Vector) -> Matrix:
    table = feature_table(layer, channels)
    total = np.zeros((len(channels), len(channels)))
    for features in table.T:
        present = np.flatnonzero(features >= 0)
        own = features[present]
        moment = layer.gram[np.ix_(own, own)] - np.outer(mean[own], mean[own])
        total[np.ix_(present, present)] += moment
    total /= max(table.shape[1], 1)
    return total


def _joint(moments: list[Matrix], problem: GroupProblem) -> Matrix:
    units = len(problem.channels)
    joint = np.zeros((units, units))
    for moment in moments:
        trace = np.trace(moment)
        if trace > 0:
            joint += moment / trace
    return joint
