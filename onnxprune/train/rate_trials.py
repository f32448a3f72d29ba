"""The learning rate of a refinement, found by short trials from the first weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from onnxprune.refinement import OptimizerName
from onnxprune.train.allowance import Allowance
from onnxprune.train.course import Course

RATES: Mapping[OptimizerName, tuple[float, ...]] = {
    "adamw": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "sgd": (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
}
"""Learning rates from which one is found by trials."""
FIRST_RATE = 3
"""Where among them the trials start."""
TRIAL_SHARE = 0.08
"""Share of the budget that each trial takes."""
MOST_TRIALS = 3
SHORTEST_TRIAL = 3
"""Steps below which a trial says nothing."""


def try_rates(course: Course, optimizer: OptimizerName, whole: Allowance) -> dict[float, float]:
    """Learning rate -> divergence after a short training from the first weights.

    Smaller rates are tried while they do better, else larger ones. Nothing is tried where there is
    hardly a step for it.

    Args:
        course: what is trained.
        optimizer: by which.
        whole: the budget, of which the trials take their shares.
    """
    if whole.steps is not None and whole.steps * TRIAL_SHARE < SHORTEST_TRIAL:
        return {}
    rates, found = RATES[optimizer], dict[float, float]()

    def follow(places: Iterable[int]) -> None:
        for place in places:
            if len(found) == MOST_TRIALS:
                return
            part = whole.part(TRIAL_SHARE, course.look_seconds)
            tried = course.train(rates[place], part, 1, f"trying rate {rates[place]:g}")
            whole.taken += part.taken
            better = tried < min(found.values(), default=math.inf)
            found[rates[place]] = tried
            if not better:
                return

    follow(range(FIRST_RATE, -1, -1))
    if min(found, key=lambda rate: found[rate]) == rates[FIRST_RATE]:
        follow(range(FIRST_RATE + 1, len(rates)))
    return found


def best_rate(trials: Mapping[float, float], optimizer: OptimizerName, before: float) -> float:
    """The rate whose trial came closest, the smaller of equals.

    Where none was better than the untrained weights they only say which does least; the rate is
    then the one that trials start with, as it is without any.
    """
    if min(trials.values(), default=math.inf) >= before:
        return RATES[optimizer][FIRST_RATE]
    return min(trials, key=lambda rate: (trials[rate], rate))
