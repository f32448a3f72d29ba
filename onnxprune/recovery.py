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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import (
    DEAD_VARIANCE,
    Moments,
    factor,
    reciprocal,
    solve_right,
    standardise,
    try_factor,
)
from onnxprune.normal_equations import Equations, equations, features_of, pooled
from onnxprune.yardstick import fit_yardstick, tune_yardstick

RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)
"""Ridges relative to each feature's variance; the small end serves exact redundancy."""

FIRST_RIDGE = RIDGES.index(1e-3)
"""Where the search starts: both priors are tried here, the better one is followed."""

MIX_RIDGE = 1e-6
"""Relative ridge of the channel mix."""

CAUTIOUS = 1e-1
"""Relative ridge of a step from a solution that no ridge could better."""


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
class FixedRidge:
    """Least squares with one ridge towards the slice, unmeasured: quick, for trial prunings.

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


@dataclass(frozen=True)
class Trial:
    """Weights that were tried.

    Attributes:
        weight: shape (outputs, kept features).
        tune_error: their error on ``tune_gram``.
        label: what they are, for reports.
        prior: what they were pulled towards, of the same shape.
        ridge: how much; None for the prior itself.
    """

    weight: Matrix
    tune_error: float
    label: str
    prior: Matrix
    ridge: float | None


MakeTrial = Callable[[Matrix, str, Matrix, float | None], Trial]
"""Measures weights, given their label, prior and ridge."""


@dataclass(frozen=True)
class Stepping:
    """Steps of a consumer's solution towards what it misses (see ``rectified``).

    Attributes:
        moments: of all rows.
        lower: factor of their ridged correlation.
        stride: the length of a step.
    """

    moments: Moments
    lower: Matrix
    stride: float

    def after(self, solution: Solution, misses: Matrix) -> Solution:
        """The solution one step on.

        Args:
            solution: where it stands.
            misses: E[e x^T] of what it misses, shape (outputs, features + 1), the constant last.
        """
        mean, inverse = self.moments.mean, self.moments.inverse_scale
        covariance = misses[:, :-1] - np.outer(misses[:, -1], mean)
        step = solve_right(self.lower, covariance * inverse) * inverse
        shift = misses[:, -1] - step @ mean
        return replace(
            solution,
            weight=solution.weight + self.stride * step,
            bias=solution.bias + self.stride * shift,
        )


@dataclass(frozen=True)
class LeastSquares:
    """Least squares on the kept features, with prior and ridge chosen on held-out images.

    The plain slice and the channel mix, each with its best bias, are candidates too, so the
    result is never worse than they are on ``tune_gram``.

    Attributes:
        ridges: rising ridges relative to each feature's variance, at least one.
        first: where among them the search starts: both priors are tried there, and the better
            one is followed to smaller ridges, else to larger ones, while the error falls.
        sweeps: steps towards targets that only count where the activation does, refitted in order
            (see ``rectified``).
        stride: the length of such a step, 1 for the least-squares solution; below 2.
    """

    ridges: tuple[float, ...] = RIDGES
    first: int = FIRST_RIDGE
    sweeps: int = 2
    stride: float = 1.5

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers the consumer; keeping all entries returns its weights, unless targets differ."""
        if problem.cross is None and len(keep) == len(problem.channels):
            return NoRecovery().solve(problem, keep)
        features = features_of(keep, problem.taps)
        system = equations(problem, features)
        tune = tune_yardstick(problem)

        def trial(weight: Matrix, label: str, prior: Matrix, ridge: float | None) -> Trial:
            error = tune.error(features, weight, system.bias(weight))
            return Trial(weight, error, label, prior, ridge)

        sliced = problem.weight[:, features]
        trials = [trial(sliced, "slice", sliced, None)]
        if len(keep) < len(problem.channels):
            mixed = channel_mix(problem, keep)
            trials.append(trial(mixed, "channel mix", mixed, None))
        if len(keep):
            trials += self._ridge_search(system, trials, trial)
        best = min(trials, key=lambda found: found.tune_error)
        error = fit_yardstick(problem).error(features, best.weight, system.bias(best.weight))
        if problem.tune_rows:  # what was to be chosen is chosen: all rows may count
            system = equations(pooled(problem), features)
        weight = best.weight
        if best.ridge is not None and problem.tune_rows:
            lower = factor(system.moments.correlation, best.ridge)
            step = solve_right(lower, system.residual(best.prior))
            weight = best.prior + step * system.moments.inverse_scale
        bias = system.bias(weight)
        return Solution(weight, bias, error, best.tune_error, best.label, best.ridge)

    def stepping(self, problem: LayerProblem, solution: Solution) -> Stepping:
        """What steps from a solution need; the consumer's entries are all kept."""
        moments = standardise(pooled(problem).gram)
        lower = factor(moments.correlation, solution.ridge or CAUTIOUS)
        return Stepping(moments, lower, self.stride)

    def _ridge_search(
        self, system: Equations, priors: list[Trial], trial: MakeTrial
    ) -> list[Trial]:
        """Tries every prior at the first ridge and follows the best; returns what was tried."""
        residuals = {prior.label: system.residual(prior.weight) for prior in priors}
        inverse_scale = system.moments.inverse_scale

        def at(index: int, chosen: list[Trial]) -> list[Trial]:
            ridge = self.ridges[index]
            lower = try_factor(system.moments.correlation, ridge)
            if lower is None:
                return []
            label = f"least squares, ridge {ridge:.0e} towards "
            return [
                trial(
                    p.weight + solve_right(lower, residuals[p.label]) * inverse_scale,
                    label + p.label,
                    p.weight,
                    ridge,
                )
                for p in chosen
            ]

        def follow(path: range) -> list[Trial]:
            """Tries ridge after ridge while each is better than the last."""
            better = [found[leader]]
            for index in path:
                tried = at(index, [priors[leader]])
                if not tried or tried[0].tune_error >= better[-1].tune_error:
                    break
                better += tried
            return better[1:]

        found = at(self.first, priors)
        if not found:
            return []
        leader = int(np.argmin([tried.tune_error for tried in found]))
        smaller = follow(range(self.first - 1, -1, -1))
        return found + (smaller or follow(range(self.first + 1, len(self.ridges))))
