"""How many channels every group keeps: under the user's targets, or as few as is safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.allocation import ALLOCATIONS, Bound, GroupChoice, PowerLaw
from onnxprune.arrays import Array
from onnxprune.errors import TargetError
from onnxprune.executor import Executor
from onnxprune.options import Options
from onnxprune.sensitivity import LEVELS, measure_sensitivity, try_counts
from onnxprune.study import Batches, Study
from onnxprune.trials import TrialNetwork

SAFE_ERROR = 0.1
"""Without a target: relative error of the outputs, on samples not fitted on, that is accepted."""

SEARCH_STEPS = 7
"""Bisection steps over the fraction of MACs kept when there is no target: 1 % apart."""

TRIAL_PASSES = 4
"""Times the calibration set all trials together may run through the network."""

MIN_TRIAL_SAMPLES = 32
"""Samples below which a trial says too little, whatever the budget."""


@dataclass(frozen=True)
class Choice:
    """What was decided, and on what grounds.

    Attributes:
        counts: group name -> channels kept.
        laws: group name -> damage as measured; empty where it was not measured.
    """

    counts: dict[str, int]
    laws: Mapping[str, PowerLaw]


def choose(
    study: Study,
    bounds: Sequence[Bound],
    macs: Callable[[Array], Array],
    tune: Batches,
    options: Options,
    executor: Executor,
) -> Choice:
    """Kept counts for all groups of a study.

    Args:
        study: the network and its rankings.
        bounds: the targets; none for the largest pruning that is safe.
        macs: MACs as a function of all groups' counts, for the search without targets.
        tune: samples for trials.
        options: settings.
        executor: where trials run.

    Raises:
        TargetError: the targets cannot be reached, or nothing can be pruned safely.
    """
    laws: dict[str, PowerLaw] = {}
    trials = None
    if options.allocation == "sensitivity" or not bounds:
        trials = TrialNetwork(study.canonical, _affordable(tune, study), executor, options.provider)
    if options.allocation == "sensitivity" and trials is not None:
        laws = measure_sensitivity(study, trials, progress=options.progress)
    choices = [_group_choice(study, group.name, laws) for group in study.groups]
    embed = _embedding(study)

    def allocate(limits: Sequence[Bound]) -> dict[str, int]:
        inner = [Bound(b.name, _restricted(b.cost, embed), b.limit, b.full) for b in limits]
        counts = ALLOCATIONS[options.allocation].allocate(choices, inner)
        return {group.name: int(n) for group, n in zip(study.groups, counts, strict=True)}

    if trials is None or bounds:
        return Choice(allocate(bounds), laws)
    return Choice(_largest_safe(study, trials, allocate, macs), laws)


def _affordable(tune: Batches, study: Study) -> Batches:
    """As many tuning samples as the budget of trials allows."""
    trials = max(1, len(LEVELS) * len(study.groups))
    budget = TRIAL_PASSES * len(tune.samples) // trials
    count = max(MIN_TRIAL_SAMPLES, budget)
    extent = tune.samples.batch_extent or 1
    count = -(-count // extent) * extent
    return Batches(tune.samples, tune.indices[:count], tune.size)


def _group_choice(study: Study, name: str, laws: Mapping[str, PowerLaw]) -> GroupChoice:
    allowed = study.allowed[name]
    error = study.rankings[name].error[allowed]
    damage = laws[name](error) if name in laws else error
    return GroupChoice(name, allowed, damage, error)


def _embedding(study: Study) -> Callable[[Array], Array]:
    """Counts of the groups that may be cut -> counts of all groups, the others whole."""
    places = study.places

    def embed(counts: Array) -> Array:
        full = np.broadcast_to(study.sizes, (*counts.shape[:-1], study.sizes.size)).copy()
        full[..., places] = counts
        return full

    return embed


def _restricted(
    cost: Callable[[Array], Array], embed: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    return lambda counts: cost(embed(np.asarray(counts)))


def _largest_safe(
    study: Study,
    trials: TrialNetwork,
    allocate: Callable[[Sequence[Bound]], dict[str, int]],
    macs: Callable[[Array], Array],
) -> dict[str, int]:
    """The smallest fraction of MACs at which all outputs' relative error stays safe."""
    full = float(macs(study.sizes))
    best: dict[str, int] | None = None
    low, high = 0.0, 1.0
    for _ in range(SEARCH_STEPS):
        fraction = (low + high) / 2
        try:
            counts = allocate([Bound("macs", macs, fraction * full, full)])
        except TargetError:
            low = fraction
            continue
        distances = try_counts(study, trials, counts)
        if max(distance.relative_error for distance in distances) <= SAFE_ERROR:
            best, high = counts, fraction
        else:
            low = fraction
    if best is None:
        raise TargetError(
            "no pruning keeps the outputs' relative error on calibration samples under "
            f"{SAFE_ERROR:g}; give a --target to accept more, or more calibration samples"
        )
    return best
