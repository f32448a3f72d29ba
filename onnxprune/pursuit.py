"""From targets to the finished model on which they hold: what is searched, and what refined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxprune.allocation import Bound
from onnxprune.bounds import FileSizes, bounds_of
from onnxprune.choice import Choice
from onnxprune.cost import parameter_count
from onnxprune.finishing import Finisher
from onnxprune.groundwork import Groundwork
from onnxprune.measurement import require_sense
from onnxprune.metadata import RESERVED
from onnxprune.model import file_bytes
from onnxprune.outcome import Outcome
from onnxprune.search import ROUNDS, Search, require_held
from onnxprune.target import Target


@dataclass(frozen=True)
class Foreseen:
    """A choice before any model is made of it.

    Attributes:
        choice: the choice.
        costs: for each target on a cost what is predicted, and what it is of the original.
        damages: for each target on damage what a trial shows.
    """

    choice: Choice
    costs: Mapping[Target, tuple[float, float]]
    damages: Mapping[Target, float]


@dataclass(frozen=True)
class Pursuit:
    """The search for a model on which targets hold.

    Attributes:
        ground: the model, its samples, and what is known of them.
        targets: what is asked; empty only where the options fix the counts.
    """

    ground: Groundwork
    targets: Sequence[Target]

    def run(self) -> Outcome:
        """The model on which the targets hold, refined if that is asked for.

        What a model costs does not change when it is refined, so that targets on costs are pursued
        without; the model that is found is refined, and all targets are judged on that. Damage
        does change: where it alone is bounded, every model that is measured is refined, each with
        a part of the budget.

        Raises:
            TargetError: the targets hold on none, or cannot.
        """
        finisher, targets, options = Finisher(self.ground), self.targets, self.ground.options
        costs = [target for target in targets if target.is_cost]
        refine = options.refine
        if options.level is not None:
            outcome = finisher.finish(self.ground.chooser.at_share(options.level), targets)
            return outcome if refine is None else finisher.refined(outcome, targets, refine)
        if refine is None:
            return self._search(lambda choice: finisher.finish(choice, targets)).run()
        if not costs:
            part = replace(refine, budget=refine.budget.divided(ROUNDS))

            def refined(choice: Choice) -> Outcome:
                return finisher.refined(finisher.finish(choice, ()), targets, part)

            return self._search(refined).run()
        search = self._search(lambda choice: finisher.finish(choice, costs))
        outcome = finisher.refined(search.run(), targets, refine)
        require_held(outcome.checks)
        return outcome

    def first(self) -> Foreseen:
        """The choice that ``run`` makes a model of first, and what is predicted of it.

        Raises:
            TargetError: the targets cannot be reached.
        """
        ground = self.ground
        if ground.options.level is not None:
            return Foreseen(ground.chooser.at_share(ground.options.level), {}, {})
        search = self._search(lambda choice: Finisher(ground).finish(choice, self.targets))
        choice = search.first()
        costs = {
            target: (search.predicted(bound, choice.counts), bound.full)
            for target, bound in search.bounds.items()
        }
        damages = {target: gauge.read(choice.counts) for target, gauge in search.gauges.items()}
        return Foreseen(choice, costs, damages)

    def _search(self, finish: Callable[[Choice], Outcome]) -> Search[Outcome]:
        """The search, before any sample is run."""
        ground = self.ground
        scope, cost, judge = ground.scope, ground.cost, ground.judge
        require_sense(self.targets, judge)
        costs = [target for target in self.targets if target.is_cost]
        bounds = bounds_of(
            costs,
            cost,
            scope.sizes,
            scope.channels,
            parameter_count(ground.original),
            files=FileSizes(file_bytes(ground.original), file_bytes(ground.canonical) + RESERVED),
            latency=ground.predicted_latency,
        )
        scope.require_reachable(bounds)  # before the samples are run, not after
        only_time = [t.kind for t in costs] == ["latency"]
        damages = [target for target in self.targets if not target.is_cost]
        chooser = ground.chooser
        return Search(
            chooser,
            Bound("macs", cost.macs, 0.0, float(cost.macs(scope.sizes))),
            dict(zip(costs, bounds, strict=True)),
            {g.target: g for g in chooser.gauges(damages, judge.metric)},
            finish,
            lambda bound, counts: float(bound.cost(scope.counts(counts))),
            scope.useful(bounds[0]) if only_time else scope.allowed,
        )
