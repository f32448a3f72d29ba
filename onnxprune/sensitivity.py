"""How much the network's output suffers when one group alone is pruned, measured.

A consumer's own error says little about what the network makes of it. Each group is therefore
pruned alone at a few levels, with its consumers recovered, and the divergence of the outputs is
measured; a power law of the consumers' error is fitted through these trials and prices every count.
A residual section has one trial: without it.
"""

from __future__ import annotations

import numpy as np

from onnxprune.allocation import PowerLaw, fit_damage
from onnxprune.arrays import IndexArray
from onnxprune.study import Study
from onnxprune.trials import Trials

LEVELS = (0.75, 0.4, 0.15)
"""Fractions of a group kept in its trials."""


def measure_sensitivity(study: Study, trials: Trials) -> dict[str, PowerLaw]:
    """The damage law of every group, from trial prunings of that group alone."""
    levels = {group.name: trial_counts(study.allowed[group.name]) for group in study.groups}
    plans = [{name: count} for name, counts in levels.items() for count in counts]
    tried = iter(trials.tried(plans, "measuring sensitivity"))
    laws = {}
    for name, counts in levels.items():
        errors = [float(study.rankings[name].error[count]) for count in counts]
        divergences = [next(tried).divergence for _ in counts]
        laws[name] = fit_damage(errors, divergences) if counts else PowerLaw(0.0, 1.0, 0.0)
    return laws


def measure_sections(study: Study, trials: Trials) -> dict[str, float]:
    """Section name -> divergence of the outputs when it alone is dropped."""
    names = [section.name for section in study.sections]
    tried = trials.tried([{name: 0} for name in names], "measuring sections")
    return {name: trial.divergence for name, trial in zip(names, tried, strict=True)}


def trial_counts(allowed: IndexArray) -> list[int]:
    """The allowed counts nearest to the trial levels, the full count left out."""
    size = int(allowed[-1])
    smaller = allowed[:-1]
    if not smaller.size:
        return []
    nearest = {int(smaller[np.argmin(np.abs(smaller - level * size))]) for level in LEVELS}
    return sorted(nearest, reverse=True)
