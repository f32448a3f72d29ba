"""How much the network's output suffers when one group alone is pruned, measured.

A consumer's own error says little about what the network makes of it. Each group is therefore
pruned alone at a few levels, with its consumers recovered, and the divergence of the outputs is
measured; a power law of the consumers' error is fitted through these trials and prices every count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.allocation import PowerLaw, fit_damage
from onnxprune.arrays import IndexArray
from onnxprune.comparison import OutputDistance
from onnxprune.progress import shown
from onnxprune.refit import padded, refit
from onnxprune.study import Study
from onnxprune.trials import TrialNetwork

LEVELS = (0.75, 0.4, 0.15)
"""Fractions of a group kept in its trials."""


def measure_sensitivity(
    study: Study, network: TrialNetwork, *, progress: bool = False
) -> dict[str, PowerLaw]:
    """The damage law of every group, from trial prunings of that group alone."""
    laws = {}
    for group in shown(study.groups, "measuring sensitivity", progress=progress):
        ranking = study.rankings[group.name]
        counts = trial_counts(study.allowed[group.name])
        errors = [float(ranking.error[count]) for count in counts]
        divergences = [try_counts(study, network, {group.name: count}) for count in counts]
        laws[group.name] = (
            fit_damage(errors, [float(np.mean([d.divergence for d in t])) for t in divergences])
            if counts
            else PowerLaw(0.0, 1.0, 0.0)
        )
    return laws


def try_counts(
    study: Study, network: TrialNetwork, counts: Mapping[str, int]
) -> list[OutputDistance]:
    """Distances of the outputs when the groups keep these counts, consumers recovered quickly."""
    alive = study.survivors(study.keeps(counts))
    tried = refit(study.views, study.layers, alive, study.trial_recovery, study.contractions)
    return network.distances(padded(study.views, tried.weights, alive), tried.masks)


def trial_counts(allowed: IndexArray) -> list[int]:
    """The allowed counts nearest to the trial levels, the full count left out."""
    size = int(allowed[-1])
    smaller = allowed[:-1]
    if not smaller.size:
        return []
    nearest = {int(smaller[np.argmin(np.abs(smaller - level * size))]) for level in LEVELS}
    return sorted(nearest, reverse=True)
