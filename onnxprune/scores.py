"""Scores of queries and keys when places of both are cut: least squares in front of the product.

A head computes s = q^T k. Without the places not in S the nearest is s' = q^T A k_S with the A that
predicts k from k_S best, and A q is another projection of the same inputs: the queries take over
what is cut (derived here). With Gq = E[q q^T] = R Lq Lq^T R, R the root mean squares of q,

    E|s - s'|^2 = E|q^T (k - A k_S)|^2 = tr(Lq^T C Lq),  C the moments of R (k - A k_S)

if rows q and k of a head are paired at random, which over all pairs of positions they nearly are.
That is the error of a layer with the weights Lq^T on the features R k, and it is ranked, priced and
recovered as one. Its bias, what all keys have in common, is the same for all scores of a query: a
softmax over the keys does not see it. Without a softmax, moments are taken about zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import solve_triangular

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import factor, quadratic, standardise

JITTER = 1e-8
"""Added to the queries' correlations: what they never showed still has one solution."""
SILENT = 1e-4
"""The least root mean square of a place, relative to the largest: places without any stay apart."""


@dataclass(frozen=True)
class ScoreProblem(LayerProblem):
    """The scores of one head as a linear map of one factor, whose weights are the other's moments.

    Attributes:
        units: R, the root mean square of every place of the factor that is mixed, shape (places,).
    """

    units: Vector = field(kw_only=True)

    def mix(self, weight: Matrix, keep: IndexArray) -> Matrix:
        """T with q' = T q the factor that takes over what is cut, shape (kept, places).

        Args:
            weight: recovered weights Lq^T A', shape (places, kept).
            keep: the places kept, shape (kept,).
        """
        change = weight - self.weight[:, keep]  # zero, exactly, if nothing was recovered
        solved = solve_triangular(self.weight[:, :-1], change, lower=False, check_finite=False)
        mix: Matrix = solved.T * self.units[keep][:, None] / self.units
        mix[np.arange(len(keep)), keep] += 1.0
        return mix


@dataclass(frozen=True)
class Moments:
    """Second moments of both factors of a product, head by head, the constant last.

    Attributes:
        mixed: those of the factor whose projection takes over, shape (heads, places + 1, ...).
        other: those of the other one, in the same form; the bias is fitted or means are zero.
    """

    mixed: Array
    other: Array


def score_problems(
    name: str, fit: Moments, tune: Moments, places: IndexArray, rows: int
) -> list[ScoreProblem]:
    """A problem for each head; their errors are relative to the variance of all heads' scores.

    Args:
        name: the product's name.
        fit: moments to fit on.
        tune: moments to choose by.
        places: network-wide channel of every place, shape (places,).
        rows: how many rows stand behind the moments.
    """
    heads = [_metric(mixed) for mixed in fit.mixed]
    grams = [_in_units(gram, units) for gram, (_, units) in zip(fit.other, heads, strict=True)]
    tunes = [_in_units(gram, units) for gram, (_, units) in zip(tune.other, heads, strict=True)]
    total = sum(_variance(w, gram) for (w, _), gram in zip(heads, grams, strict=True))
    return [
        ScoreProblem(
            name=f"{name}[{head}]",
            weight=np.column_stack([weight, np.zeros(len(weight))]),
            gram=grams[head],
            tune_gram=tunes[head],
            channels=places,
            taps=1,
            rows=rows,
            variance=total,
            units=units,
        )
        for head, (weight, units) in enumerate(heads)
    ]


def about_zero(grams: Array) -> Array:
    """Grams, shape (heads, places + 1, places + 1), as if all features had mean zero."""
    result = grams.copy()
    result[:, -1, :-1] = result[:, :-1, -1] = 0.0
    return result


def about_mean(grams: Array) -> Array:
    """Grams of the same shape of what is left of the features when their means are taken out."""
    return about_zero(grams - grams[:, :, -1:] * grams[:, -1:, :]) + _constant(grams)


def _constant(grams: Array) -> Array:
    """The moment of the constant, which is not taken out."""
    moments = np.zeros_like(grams)
    moments[:, -1, -1] = grams[:, -1, -1]
    return moments


def _metric(gram: Matrix) -> tuple[Matrix, Vector]:
    """Lq^T, upper triangular, and R of E[q q^T] = R Lq Lq^T R."""
    second = gram[:-1, :-1]
    rms = np.sqrt(np.maximum(np.diag(second), 0.0))
    units = np.maximum(rms, SILENT * rms.max(initial=0.0))
    units[units == 0.0] = 1.0
    weight: Matrix = factor(second / np.outer(units, units), JITTER).T
    return weight, units


def _in_units(gram: Matrix, units: Vector) -> Matrix:
    scale = np.append(units, 1.0)
    return np.asarray(gram * np.outer(scale, scale), np.float64)


def _variance(weight: Matrix, gram: Matrix) -> float:
    moments = standardise(gram)
    return quadratic(weight * moments.scale, moments.correlation)
