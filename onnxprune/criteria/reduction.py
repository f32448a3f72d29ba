"""A consumer as one group sees it: blocks of features, given everything that always stays.

The constant and the features of other groups are always kept, so they are eliminated once (a Schur
complement); what is left are the moments of the group's own features that nothing kept explains.
For the error of a keep set only these and the weights of the group's features count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.criteria.loss import loss_curve, pairwise_loss
from onnxprune.layer_problem import GroupProblem, LayerProblem
from onnxprune.linalg import (
    Moments,
    condition_on,
    factor,
    fitted_weight,
    quadratic,
    ridged,
    standardise,
)

DAMPING = 1e-6
"""Ridge of the rankings, relative to each feature's variance."""


@dataclass(frozen=True)
class Reduced:
    """One consumer, reduced to a group's units.

    Units without a full block are padded with dummy features of unit variance and zero weight, so
    that feature = unit * block + position for every unit.

    Attributes:
        gram: positive definite, shape (units * block, units * block).
        weight: shape (outputs, units * block).
        block: features per unit.
        variance: what its error is relative to, positive: the variance of the consumer's output,
            summed over outputs, unless the problem says otherwise.
        refit: whether the weights can take over what is cut.
    """

    gram: Matrix
    weight: Matrix
    block: int
    variance: float
    refit: bool = True


MOST_SHRUNK = 0.9
"""Correlations are never taken for noise entirely."""


def feature_table(layer: LayerProblem, channels: IndexArray) -> IndexArray:
    """The features of each unit: shape (units, block), padded with -1 at the end of a row.

    Args:
        layer: the consumer.
        channels: the group's network-wide channel indices, distinct, shape (units,).
    """
    by_channel = np.argsort(channels)
    place = np.searchsorted(channels[by_channel], layer.channels)
    place = np.minimum(place, len(channels) - 1)
    unit = np.where(channels[by_channel][place] == layer.channels, by_channel[place], -1)
    unit[layer.channels < 0] = -1
    entries = np.flatnonzero(unit >= 0)
    entries = entries[np.argsort(unit[entries], kind="stable")]
    counts = np.bincount(unit[entries], minlength=len(channels))
    width = int(counts.max(initial=0))
    table = np.full((len(channels), width), -1, dtype=np.int64)
    table[np.arange(width) < counts[:, None]] = entries
    features = table[:, :, None] * layer.taps + np.arange(layer.taps)
    features[table < 0] = -1
    return features.reshape(len(channels), width * layer.taps)


def reduce_layer(layer: LayerProblem, channels: IndexArray, damping: float) -> Reduced | None:
    """Reduces a consumer to a group's units; None if its output does not depend on them."""
    table = feature_table(layer, channels).reshape(-1)
    moments = standardise(layer.gram)
    weight = fitted_weight(layer.weight, layer.gram, layer.cross, moments, damping)
    weight = weight * moments.scale
    moment = moments.correlation if layer.refit else _uncentred(layer.gram, moments)
    variance = quadratic(weight, moment)
    if table.size == 0 or variance <= 0.0:
        return None
    present = np.flatnonzero(table >= 0)
    own = table[present]
    stays = np.setdiff1d(np.arange(len(moments.scale)), own)
    if layer.refit:
        certain = shrunk(moments.correlation, layer.rows)
        gram = condition_on(ridged(certain, damping), stays, own)
    else:
        gram = moment[np.ix_(own, own)]
    if len(present) < len(table):
        padded = np.eye(len(table))
        padded[np.ix_(present, present)] = gram
        gram = padded
    own_weight = np.zeros((len(weight), len(table)))
    own_weight[:, present] = weight[:, own]
    relative_to = variance if layer.variance is None else layer.variance
    return Reduced(gram, own_weight, len(table) // len(channels), relative_to, layer.refit)


def shrunk(correlation: Matrix, rows: int) -> Matrix:
    """Correlations without what is likely to be chance in so many rows.

    Sample correlations r of n rows vary by about (1 - r^2)^2 / n. Shrinking them by the share of
    that in their mean square has the least expected error (Schaefer & Strimmer 2005, eq. 8).
    Without it features that outnumber the rows seem to explain each other wholly.

    Args:
        correlation: shape (features, features).
        rows: how many rows it was taken from.
    """
    squares = correlation**2
    np.fill_diagonal(squares, 0.0)
    chance = (1.0 - squares) ** 2 / rows
    np.fill_diagonal(chance, 0.0)
    total = float(squares.sum())
    share = min(float(chance.sum()) / total, MOST_SHRUNK) if total > 0 else 0.0
    result: Matrix = (1.0 - share) * correlation
    np.fill_diagonal(result, np.diag(correlation))
    return result


def _uncentred(gram: Matrix, moments: Moments) -> Matrix:
    """E[x x^T] of the features in units of their deviations: no bias takes their mean over."""
    inverse = moments.inverse_scale
    second: Matrix = gram[:-1, :-1] / gram[-1, -1] * inverse[:, None] * inverse
    return second


def reduce_group(problem: GroupProblem, damping: float) -> tuple[Reduced, ...]:
    """The consumers of a group, reduced to its units; those that do not read it are left out."""
    found = (reduce_layer(layer, problem.channels, damping) for layer in problem.consumers)
    return tuple(reduced for reduced in found if reduced is not None)


def error_curve(problem: GroupProblem, order: IndexArray, damping: float = DAMPING) -> Vector:
    """Relative error of the least-squares recovered consumers for every prefix of an order.

    With the features permuted to keep order and G = L L^T, the features are x = L y with E[y y^T] =
    I, and keeping the first k spans exactly the first k of y. So the residual of W x is the
    squared norm of the columns of W L behind them: one factorisation gives every count (derived
    here; the triangular form is that of arXiv 2405.17506).

    Args:
        problem: the group.
        order: permutation of range(units), the first k of which are kept.
        damping: relative ridge of the Gram.

    Returns:
        Array of shape (units + 1,), as ``Ranking.error``: never rising, 0 at the end.
    """
    error = np.zeros(len(order) + 1)
    for reduced in reduce_group(problem, damping):
        if not reduced.refit:
            pairs = pairwise_loss(reduced.gram, reduced.weight, reduced.block)
            error += loss_curve(pairs, order) / reduced.variance
            continue
        features = (order[:, None] * reduced.block + np.arange(reduced.block)).reshape(-1)
        lower = factor(reduced.gram[np.ix_(features, features)], 0.0)
        spread = reduced.weight[:, features] @ lower
        lost = np.einsum("of,of->f", spread, spread).reshape(len(order), -1).sum(axis=1)
        error[:-1] += np.cumsum(lost[::-1])[::-1] / reduced.variance
    return never_rising(error)


def never_rising(error: Vector) -> Vector:
    """An error curve in which more units never cost more; a unit may make up for another's loss."""
    monotone: Vector = np.maximum.accumulate(error[::-1])[::-1]
    return monotone
