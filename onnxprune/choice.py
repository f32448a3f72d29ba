"""How many channels every group keeps: under the user's targets, or as few as is safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from onnxprune.allocation import ALLOCATIONS, Bound, GroupChoice, PowerLaw
from onnxprune.errors import TargetError
from onnxprune.executor import Executor
from onnxprune.options import Options
from onnxprune.progress import shown
from onnxprune.section_choice import section_choices, settled
from onnxprune.section_damage import QuickRefit, measure_sections
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


NO_DROPS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Choice:
    """What was decided, and on what grounds.

    Attributes:
        counts: group name -> channels kept; section name -> 1, or 0 if it is dropped.
        laws: group name -> damage as measured; empty where it was not measured.
        drops: section name -> damage as measured.
    """

    counts: dict[str, int]
    laws: Mapping[str, PowerLaw]
    drops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Chooser:
    """Chooses counts for one study, as often as it is asked.

    Attributes:
        study: the network and its rankings.
        tune: samples for trials.
        options: settings.
        executor: where trials run.
        fit: samples to refit on what follows a section in its trial; None to leave that out.
    """

    study: Study
    tune: Batches
    options: Options
    executor: Executor
    fit: Batches | None = None

    @cached_property
    def trials(self) -> TrialNetwork:
        """The network for trials, with as many tuning samples as their budget allows."""
        return trial_network(self.study, self.tune, self.options, self.executor)

    @cached_property
    def laws(self) -> Mapping[str, PowerLaw]:
        """Group name -> its damage law, where the allocation measures them."""
        if self.options.allocation != "sensitivity":
            return {}
        return measure_sensitivity(self.study, self.trials, progress=self.options.progress)

    @cached_property
    def drops(self) -> Mapping[str, float]:
        """Section name -> what dropping it does, where the allocation measures that."""
        if self.options.allocation != "sensitivity":
            return {}
        options, behind = self.options, None
        if self.fit is not None and options.recovery and options.sequential:
            executor, provider = self.executor, options.provider
            behind = QuickRefit(self.fit, self.tune, executor, options.seed, provider)
        return measure_sections(self.study, self.trials, behind, progress=options.progress)

    def choose(self, bounds: Sequence[Bound], macs: Bound) -> Choice:
        """Kept counts for all groups.

        Args:
            bounds: the targets; none for the largest pruning that is safe.
            macs: a bound on MACs, whose limit is searched where there are no targets.

        Raises:
            TargetError: the targets cannot be reached, or nothing can be pruned safely.
        """
        if bounds:
            return Choice(self._allocate(bounds), self.laws, self.drops)

        def within(fraction: float) -> dict[str, int]:
            return self._allocate([replace(macs, limit=fraction * macs.full)])

        least = _least_fraction(self.study, macs)
        progress = self.options.progress
        safe = _largest_safe(self.study, self.trials, within, least, progress=progress)
        return Choice(safe, self.laws, self.drops)

    def _allocate(self, bounds: Sequence[Bound]) -> dict[str, int]:
        return allocate(self.study, bounds, self.options.allocation, self.laws, self.drops)


def allocate(
    study: Study,
    bounds: Sequence[Bound],
    allocation: str,
    laws: Mapping[str, PowerLaw],
    drops: Mapping[str, float] = NO_DROPS,
) -> dict[str, int]:
    """Group name -> kept count under the bounds, and section name -> 1, or 0 if it is dropped.

    Args:
        study: the network and its rankings.
        bounds: the targets.
        allocation: name of an allocation.
        laws: group name -> damage, for allocations that go by it.
        drops: section name -> damage of dropping it; sections without stay.

    Raises:
        TargetError: the bounds cannot be reached.
    """
    choices = [_group_choice(study, group.name, laws) for group in study.groups]
    choices += section_choices(study, drops)
    inner = [study.restricted(bound) for bound in bounds]
    counts = ALLOCATIONS[allocation].allocate(choices, inner)
    chosen = {choice.name: int(n) for choice, n in zip(choices, counts, strict=True)}
    return settled(study, chosen)


def trial_network(
    study: Study, tune: Batches, options: Options, executor: Executor
) -> TrialNetwork:
    """The network for trials, with as many tuning samples as their budget allows."""
    trials = len(LEVELS) * len(study.groups) + len(study.sections)
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
