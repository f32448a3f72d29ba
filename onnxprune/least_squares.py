"""Least squares on the kept features, with prior and ridge chosen on other images.

The prior is what the weights are pulled towards: the plain slice W_K or the *channel mix* (see
``recovery``), or in a refit in order the one-shot solution. A solution can be followed by steps
towards targets that only count where the activation does (see ``rectified``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.arrays import IndexArray, Matrix
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import Moments, factor, solve_right, standardise, try_factor
from onnxprune.normal_equations import Equations, equations, features_of, pooled
from onnxprune.recovery import NoRecovery, Solution, channel_mix
from onnxprune.yardstick import fit_yardstick, tune_yardstick

RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)
"""Ridges relative to each feature's variance; the small end serves exact redundancy."""

FIRST_RIDGE = RIDGES.index(1e-3)
"""Where the search starts: both priors are tried here, the better one is followed."""

CAUTIOUS = 1e-1
"""Relative ridge of a step from a solution that no ridge could better."""


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

    Its priors, the plain slice and the channel mix or one-shot solution, are candidates too, each
    with its best bias, so the result is never worse than they are on ``tune_gram``.

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

        priors = {"slice": problem.weight}
        if problem.alternative is not None:
            priors = {"one-shot": problem.weight, "slice": problem.alternative}
        kept = {label: weight[:, features] for label, weight in priors.items()}
        trials = [trial(weight, label, weight, None) for label, weight in kept.items()]
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
