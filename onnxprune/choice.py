"""How many channels every group keeps: under bounds on costs, or as few as the damage allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType

from onnxprune.allocation import ALLOCATIONS, Bound, GroupChoice, PowerLaw, at_share
from onnxprune.arrays import IndexArray, Vector
from onnxprune.batches import Batches
from onnxprune.criteria.spectra import behind, components, pivots
from onnxprune.errors import TargetError
from onnxprune.executor import Executor
from onnxprune.gauges import Gauge, gauges_of
from onnxprune.metric import Metric
from onnxprune.options import Options
from onnxprune.problems import group_problem
from onnxprune.progress import shown
from onnxprune.section_choice import dropped, section_choices, settled
from onnxprune.sensitivity import LEVELS, measure_sections, measure_sensitivity
from onnxprune.study import Study
from onnxprune.study_memory import NO_MEMORY, StudyMemory
from onnxprune.target import Target
from onnxprune.trials import Trials

SEARCH_STEPS = 7
"""Bisection steps over the fraction of MACs kept under targets on damage: within 1 %."""

NO_DROPS: Mapping[str, float] = MappingProxyType({})
NO_SHARES: Mapping[str, Vector] = MappingProxyType({})


@dataclass(frozen=True)
class Choice:
    """What was decided, and on what grounds.

    Attributes:
        counts: group name -> channels kept; section name -> 1, or 0 if it is dropped.
        laws: group name -> damage as measured; empty where it was not measured.
        drops: section name -> damage as measured.
        share: the largest share of what its channels carry that any group is left without; None
            where the allocation does not go by it.
    """

    counts: dict[str, int]
    laws: Mapping[str, PowerLaw]
    drops: Mapping[str, float] = field(default_factory=dict)
    share: float | None = None


@dataclass(frozen=True)
class Chooser:
    """Chooses counts for one study, as often as it is asked.

    Attributes:
        study: the network and its rankings.
        fit: samples that trials may be refitted on.
        tune: samples to judge trials by.
        options: settings.
        executor: where trials run.
        memory: finds what trials have shown before.
    """

    study: Study
    fit: Batches
    tune: Batches
    options: Options
    executor: Executor
    memory: StudyMemory = NO_MEMORY

    @cached_property
    def trials(self) -> Trials:
        """Trials on as many samples as those of a sensitivity may take."""
        return Trials.within_budget(
            self.study,
            self.fit,
            self.tune,
            self.options,
            self.executor,
            trials=len(LEVELS) * len(self.study.groups) + len(self.study.sections),
        )

    @cached_property
    def finalists(self) -> Trials:
        """Trials on more samples, for two whole plans."""
        study, fit, tune = self.study, self.fit, self.tune
        return Trials.within_budget(study, fit, tune, self.options, self.executor, trials=2)

    @cached_property
    def laws(self) -> Mapping[str, PowerLaw]:
        """Group name -> its damage law, where the allocation measures them."""
        if self.options.composition.allocation != "sensitivity":
            return {}
        return self.memory.laws(
            self.study, self.options, lambda: measure_sensitivity(self.study, self.trials)
        )

    @cached_property
    def drops(self) -> Mapping[str, float]:
        """Section name -> what dropping it does, where the allocation measures that."""
        if self.options.composition.allocation != "sensitivity":
            return {}
        return self.memory.drops(
            self.study, self.options, lambda: measure_sections(self.study, self.trials)
        )

    @cached_property
    def unexplained(self) -> Mapping[str, Vector]:
        """Group name -> what counts leave unexplained, where the allocation asks for it."""
        return unexplained_of(self.study, self.options)

    def at_share(self, share: float) -> Choice:
        """The counts that leave no group a larger share of what its channels carry unexplained."""
        choices = _choices(self.study, self.laws, self.unexplained)
        counts = {c.name: int(n) for c, n in zip(choices, at_share(choices, share), strict=True)}
        return self._decided(counts)

    def gauges(self, targets: Sequence[Target], metric: Metric | None) -> list[Gauge]:
        """What trials say of targets on damage."""
        return gauges_of(targets, lambda: self.trials, metric)

    def under(
        self, bounds: Sequence[Bound], allowed: Mapping[str, IndexArray] | None = None
    ) -> Choice:
        """The counts under bounds on costs that do least damage.

        Args:
            bounds: the bounds.
            allowed: group name -> the counts to choose among; None for all that are allowed.

        Raises:
            TargetError: the bounds cannot be reached.
        """
        known = self.study if allowed is None else replace(self.study, allowed=allowed)
        return self._decided(self._least_damage(known, bounds))

    def _decided(self, counts: dict[str, int]) -> Choice:
        left = [curve[counts[name]] for name, curve in self.unexplained.items()]
        share = float(max(left)) if left else None
        return Choice(counts, self.laws, self.drops, share)

    def _least_damage(self, known: Study, bounds: Sequence[Bound]) -> dict[str, int]:
        """An allocation over groups and sections, or one over groups alone if trials prefer it.

        Neighbours that take each other's part over are priced as if the other one stayed, so that
        several dropped sections may cost more than their sum.
        """
        allot = partial(
            allocate,
            known,
            bounds,
            self.options.composition.allocation,
            self.laws,
            self.unexplained,
        )
        counts = allot(self.drops)
        if not dropped(known, counts):
            return counts
        try:
            plans = [counts, allot()]
        except TargetError:  # that only dropping can reach
            return counts
        with_sections, without = self.finalists.tried(plans, "comparing plans")
        return plans[int(without.divergence < with_sections.divergence)]

    def least(self, macs: Bound) -> float:
        """The smallest fraction of the MACs that the groups' allowed counts can reach.

        Raises:
            TargetError: no group may lose a channel.
        """
        return _least_fraction(self.study, macs)

    def at(self, fraction: float, macs: Bound) -> Choice:
        """The counts with so much of the MACs that do least damage.

        Raises:
            TargetError: there are no counts with so few.
        """
        return self.under([replace(macs, limit=fraction * macs.full)])

    def within(
        self, gauges: Sequence[Gauge], macs: Bound, low: float, high: float
    ) -> tuple[float, Choice] | None:
        """The smallest fraction of the MACs whose trial stays within limits on damage.

        Args:
            gauges: the limits.
            macs: the MACs.
            low: a fraction that is too small.
            high: a fraction that is large enough; what is found is smaller.

        Returns:
            The fraction and its counts; None if no fraction that was tried stays within.
        """
        best: tuple[float, Choice] | None = None
        progress = self.options.progress
        for _ in shown(range(SEARCH_STEPS), "searching the largest pruning", progress=progress):
            fraction = (low + high) / 2
            choice = self.at(fraction, macs)
            if all(gauge.holds(choice.counts) for gauge in gauges):
                best, high = (fraction, choice), fraction
            else:
                low = fraction
        return best


def allocate(
    study: Study,
    bounds: Sequence[Bound],
    allocation: str,
    laws: Mapping[str, PowerLaw],
    unexplained: Mapping[str, Vector] = NO_SHARES,
    drops: Mapping[str, float] = NO_DROPS,
) -> dict[str, int]:
    """Group name -> kept count under the bounds, and section name -> 1, or 0 if it is dropped.

    Args:
        study: the network and its rankings.
        bounds: the bounds.
        allocation: name of an allocation.
        laws: group name -> its damage law, where it was measured.
        unexplained: as ``unexplained_of`` returns it, for allocations by shares.
        drops: section name -> damage of dropping it; sections without stay.

    Raises:
        TargetError: the bounds cannot be reached.
    """
    choices = [*_choices(study, laws, unexplained), *section_choices(study, drops)]
    inner = [study.restricted(bound) for bound in bounds]
    counts = ALLOCATIONS[allocation].allocate(choices, inner)
    chosen = {choice.name: int(n) for choice, n in zip(choices, counts, strict=True)}
    return settled(study, chosen)


def unexplained_of(study: Study, options: Options) -> dict[str, Vector]:
    """Group name -> share of what its channels carry that each count leaves unexplained.

    Shape (channels + 1,) each; empty where the allocation does not go by shares.
    """
    allocation = options.composition.allocation
    if allocation not in ("cumvar", "information"):
        return {}
    found = {}
    for group in study.groups:
        problem = group_problem(group, study.network, study.layers)
        if allocation == "cumvar":
            found[group.name] = behind(pivots(problem, study.rankings[group.name].order))
        else:
            found[group.name] = behind(components(problem, options.settings.moments))
    return found


def _choices(
    study: Study, laws: Mapping[str, PowerLaw], unexplained: Mapping[str, Vector]
) -> list[GroupChoice]:
    """What the groups may keep."""
    choices = []
    for group in study.groups:
        name, allowed = group.name, study.allowed[group.name]
        error = study.rankings[name].error[allowed]
        damage = laws[name](error) if name in laws else error
        share = unexplained[name][allowed] if name in unexplained else None
        choices.append(GroupChoice(name, allowed, damage, error, share))
    return choices


def _least_fraction(study: Study, macs: Bound) -> float:
    """The smallest fraction of the MACs that the groups' allowed counts can reach."""
    least = float(study.restricted(macs).cost(study.floors)) / (macs.full or 1.0)
    if least >= 1:
        raise TargetError(
            "no channel group may keep fewer channels than it has; lower --align or exclude fewer "
            "groups"
        )
    return least
