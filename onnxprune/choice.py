"""How many channels every group keeps: under the user's targets, or as few as is safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from onnxprune.allocation import ALLOCATIONS, Bound, GroupChoice, PowerLaw
from onnxprune.errors import TargetError
from onnxprune.executor import Executor
from onnxprune.options import Options
from onnxprune.progress import shown
from onnxprune.sensitivity import LEVELS, measure_sensitivity, try_counts
from onnxprune.study import Batches, Study
from onnxprune.trials import TrialNetwork

SAFE_ERROR = 0.1
"""Without a target: relative error of the outputs, on samples not fitted on, that is accepted."""

SEARCH_STEPS = 7
"""Bisection steps over the fraction of MACs kept when there is no target: under 1 % apart."""

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


@dataclass(frozen=True)
class Chooser:
    """Chooses counts for one study, as often as it is asked.

    Attributes:
        study: the network and its rankings.
        tune: samples for trials.
        options: settings.
        executor: where trials run.
    """

    study: Study
    tune: Batches
    options: Options
    executor: Executor

    @cached_property
    def trials(self) -> TrialNetwork:
        """The network for trials, with as many tuning samples as their budget allows."""
        return trial_network(self.study, self.tune, self.options, self.executor)

    @cached_property
    def laws(self) -> Mapping[str, PowerLaw]:
        """Group name -> its damage law, where the allocation measures them."""
        if self.options.composition.allocation != "sensitivity":
            return {}
        return measure_sensitivity(self.study, self.trials, progress=self.options.progress)

    def choose(self, bounds: Sequence[Bound], macs: Bound) -> Choice:
        """Kept counts for all groups.

        Args:
            bounds: the targets; none for the largest pruning that is safe.
            macs: a bound on MACs, whose limit is searched where there are no targets.

        Raises:
            TargetError: the targets cannot be reached, or nothing can be pruned safely.
        """
        if bounds:
            return Choice(self._allocate(bounds), self.laws)

        def within(fraction: float) -> dict[str, int]:
            return self._allocate([replace(macs, limit=fraction * macs.full)])

        least = _least_fraction(self.study, macs)
        progress = self.options.progress
        safe = _largest_safe(self.study, self.trials, within, least, progress=progress)
        return Choice(safe, self.laws)

    def _allocate(self, bounds: Sequence[Bound]) -> dict[str, int]:
        return allocate(self.study, bounds, self.options.composition.allocation, self.laws)


def allocate(
    study: Study, bounds: Sequence[Bound], allocation: str, laws: Mapping[str, PowerLaw]
) -> dict[str, int]:
    """Group name -> kept count under the bounds.

    Raises:
        TargetError: the bounds cannot be reached.
    """
    choices = [_group_choice(study, group.name, laws) for group in study.groups]
    inner = [study.restricted(bound) for bound in bounds]
    counts = ALLOCATIONS[allocation].allocate(choices, inner)
    return {group.name: int(n) for group, n in zip(study.groups, counts, strict=True)}


def trial_network(
    study: Study, tune: Batches, options: Options, executor: Executor
) -> TrialNetwork:
    """The network for trials, with as many tuning samples as their budget allows."""
    trials = len(LEVELS) * len(study.groups)
    count = max(MIN_TRIAL_SAMPLES, TRIAL_PASSES * len(tune.samples) // trials)
    extent = tune.samples.batch_extent or 1
    subset = replace(tune, indices=tune.indices[: -(-count // extent) * extent])
    return TrialNetwork(study.canonical, subset, executor, options.provider)


def _group_choice(study: Study, name: str, laws: Mapping[str, PowerLaw]) -> GroupChoice:
    allowed = study.allowed[name]
    error = study.rankings[name].error[allowed]
    damage = laws[name](error) if name in laws else error
    return GroupChoice(name, allowed, damage, error)


def _least_fraction(study: Study, macs: Bound) -> float:
    """The smallest fraction of the MACs that the groups' allowed counts can reach."""
    least = float(study.restricted(macs).cost(study.floors)) / (macs.full or 1.0)
    if least >= 1:
        raise TargetError(
            "no channel group may keep fewer channels than it has; lower --align or exclude fewer "
            "groups"
        )
    return least


def _largest_safe(
    study: Study,
    trials: TrialNetwork,
    within: Callable[[float], dict[str, int]],
    least: float,
    *,
    progress: bool = False,
) -> dict[str, int]:
    """The counts within the smallest fraction of MACs, from ``least`` on, that is safe."""
    best: dict[str, int] | None = None
    low, high = least, 1.0
    for _ in shown(range(SEARCH_STEPS), "searching the largest safe pruning", progress=progress):
        fraction = (low + high) / 2
        counts = within(fraction)
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
