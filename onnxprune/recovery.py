"""Recovery: new weights for a consumer that reads only the kept entries.

The consumer computed W x + b; its targets y have H = E[y x^T], which is W G unless given. With K
the kept features, P0 a prior for the weights and D = diag(C_KK), the least-squares weights are

    W' = (H_K + lambda P0 D) (C_KK + lambda D)^-1 = P0 + (H_K - P0 C_KK) (C_KK + lambda D)^-1

where C and H are centred on the constant, which is never ridged and never dropped: whatever the
weights, the bias is the best one, mean(y) - W' mean(x_K). Two priors compete: the plain slice W_K
and the *channel mix*, which replaces each dropped channel by a combination of kept ones, the same
at every tap: W_K + W_D B with B = C_DK C_KK^-1 (arXiv 2405.17506). Prior and lambda are chosen on
Gram matrices of other images (derived here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import (
    DEAD_VARIANCE,
    factor,
    reciprocal,
    solve_right,
)
from onnxprune.normal_equations import equations, features_of
from onnxprune.yardstick import fit_yardstick, tune_yardstick

MIX_RIDGE = 1e-6
"""Relative ridge of the channel mix."""


@dataclass(frozen=True)
class Solution:
    """Recovered weights of a consumer.

    Attributes:
        weight: shape (outputs, kept features), entries of the keep in order, taps inside.
        bias: shape (outputs,).
        error: squared error over output variance on ``gram``; None where it was not asked for.
            Where the weights are solved on all rows in the end, that of the weights before.
        tune_error: the same on ``tune_gram``.
        label: what was chosen, for reports.
        ridge: what was chosen of ridges; None for none.
        sliced_error: ``tune_error`` of the consumer's own weights and bias in their place; None
            where it was not asked for.
    """

    weight: Matrix
    bias: Vector
    error: float | None
    tune_error: float | None
    label: str
    ridge: float | None = None
    sliced_error: float | None = None


class Recovery(Protocol):
    """Solves for the weights of a consumer whose other entries are gone."""

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers a consumer from the sorted indices of its surviving entries."""
        ...


def channel_mix(problem: LayerProblem, keep: IndexArray) -> Matrix:
    """Weights of the kept entries plus those of the dropped ones, mixed in: W_K + W_D B.

    B predicts dropped channels from kept ones by least squares, from moments averaged over taps.
    With zero padding the moments are uncentred, so that zeros stay zero; else they are centred.

    Returns:
        Array of shape (outputs, len(keep) * taps).
    """
    entries, taps = len(problem.channels), problem.taps
    drop = np.setdiff1d(np.arange(entries), keep)
    weight = problem.weight[:, :-1].reshape(-1, entries, taps)
    gram = problem.gram / problem.gram[-1, -1]
    mean = np.zeros(entries * taps) if problem.zero_padded else gram[:-1, -1]
    channel_gram = np.zeros((entries, entries))
    second = np.zeros(entries)
    for tap in range(taps):
        own_mean, own = mean[tap::taps], gram[tap:-1:taps, tap:-1:taps]
        channel_gram += own - np.outer(own_mean, own_mean)
        second += np.diag(own)
    diagonal = np.diag(channel_gram).copy()
    dead = diagonal <= DEAD_VARIANCE * second
    inverse = reciprocal(np.sqrt(np.where(dead, 0.0, diagonal)))
    channel_gram *= np.outer(~dead, ~dead)
    kept = channel_gram[np.ix_(keep, keep)] * np.outer(inverse[keep], inverse[keep])
    np.fill_diagonal(kept, 1.0)
    both = channel_gram[np.ix_(drop, keep)] * inverse[keep]
    mix = solve_right(factor(kept, MIX_RIDGE), both) * inverse[keep]
    mixed: Matrix = weight[:, keep] + np.einsum("odt,dk->okt", weight[:, drop], mix, optimize=True)
    return mixed.reshape(len(weight), -1)


@dataclass(frozen=True)
class NoRecovery:
    """Slices the weights and leaves the bias: what pruning without data does."""

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Slices the consumer."""
        features = features_of(keep, problem.taps)
        weight, bias = problem.weight[:, features].copy(), problem.weight[:, -1].copy()
        error, tune_error = (
            measure(problem).error(features, weight, bias)
            for measure in (fit_yardstick, tune_yardstick)
        )
        return Solution(weight, bias, error, tune_error, "slice, same bias")


@dataclass(frozen=True)
class BiasOnly:
    """Slices the weights and solves for the bias alone, unmeasured: where a refit starts from."""

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Slices the consumer; the mean of what is cut moves into the bias."""
        features = features_of(keep, problem.taps)
        weight = problem.weight[:, features].copy()
        lost = problem.weight.copy()
        lost[:, features] = 0.0
        bias = lost @ problem.gram[:, -1] / problem.gram[-1, -1]
        return Solution(weight, bias, None, None, "slice")


@dataclass(frozen=True)
class FixedRidge:
    """Least squares with one ridge towards the slice, unmeasured: quick, for trials and starts.

    Attributes:
        ridge: relative to each feature's variance.
    """

    ridge: float = 1e-3

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers the consumer without choosing anything by its errors."""
        features = features_of(keep, problem.taps)
        weight = problem.weight[:, features]
        system = equations(problem, features)
        lower = factor(system.moments.correlation, self.ridge)
        step = solve_right(lower, system.residual(weight)) * system.moments.inverse_scale
        weight = weight + step
        label = f"least squares, ridge {self.ridge:.0e}"
        return Solution(weight, system.bias(weight), None, None, label)
