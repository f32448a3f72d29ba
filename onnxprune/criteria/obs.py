"""Backward elimination with block optimal-brain-surgeon scores: the default criterion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.criteria.balance import fullest_parts
from onnxprune.criteria.elimination import BlockElimination
from onnxprune.criteria.loss import FixedElimination
from onnxprune.criteria.reduction import DAMPING, never_rising, reduce_group
from onnxprune.layer_problem import GroupProblem
from onnxprune.ranking import Ranking


@dataclass(frozen=True)
class Obs:
    """Removes, one after the other, the unit whose loss the consumers can repair best.

    The score of a unit is the exact rise of the consumers' least-squares error, each relative to
    the variance of its output (see ``elimination``; the sum over consumers is derived here).

    Attributes:
        damping: ridge relative to each feature's variance.
    """

    damping: float = DAMPING

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks by reversed elimination; ties lose the higher index first."""
        units = len(problem.channels)
        states = [
            (
                (BlockElimination if layer.refit else FixedElimination)(
                    layer.gram, layer.weight, layer.block
                ),
                layer.variance,
            )
            for layer in reduce_group(problem, self.damping)
        ]
        remaining = np.ones(units, dtype=bool)
        removed = np.zeros(units, dtype=np.int64)
        paid = np.zeros(units)
        for step in range(units):
            allowed = fullest_parts(remaining, problem.parts)
            cost = np.zeros(units)
            for state, variance in states:
                cost += state.costs() / variance
            unit = int(allowed[::-1][np.argmin(cost[allowed][::-1])])
            removed[step], paid[step] = unit, cost[unit]
            remaining[unit] = False
            for state, _ in states:
                state.remove(unit)
        error = np.append(np.cumsum(paid)[::-1], 0.0)
        return Ranking(order=removed[::-1].copy(), error=never_rising(error))
