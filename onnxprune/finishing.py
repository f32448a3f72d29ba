"""From a choice of counts to a finished model, with what is measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.choice import Choice
from onnxprune.dropping import chosen_sections
from onnxprune.errors import PlanMismatchError
from onnxprune.groundwork import Groundwork
from onnxprune.least_squares import LeastSquares
from onnxprune.measurement import Measured
from onnxprune.outcome import Outcome
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.recovery import BiasOnly, FixedRidge, Recovery, Solution
from onnxprune.refinement import Refine
from onnxprune.refining import Refiner
from onnxprune.rewrite import OTHER_MODEL, apply, digest, kept_channels
from onnxprune.scope import Scope
from onnxprune.section_choice import dropped, drops, prior_of, with_constants
from onnxprune.sequential import refit_in_order, solved_in_order
from onnxprune.study import Study
from onnxprune.target import Target
from onnxprune.verdict import Check

FEW_SAMPLES = 64
"""With fewer samples to fit on, one-shot solutions generalise worse than the plain slice."""

START_RIDGE = 1e-1
"""Relative ridge of the one-shot solutions that refits in order start from otherwise."""


@dataclass(frozen=True)
class Finisher:
    """Makes and measures pruned models of one original.

    Attributes:
        ground: the model, its samples, and what is known of them.
    """

    ground: Groundwork

    def finish(self, choice: Choice, targets: Sequence[Target]) -> Outcome:
        """The model of a choice, and what is measured on it."""
        known, original = self.ground.study, self.ground.original
        counts = choice.counts
        plan = plan_of(original, known, counts)
        weights, solutions = self._recovered(known, plan, counts)
        pruned = apply(original, plan, weights)
        measured, checks = self._judged(pruned, choice, targets)
        cost = self.ground.cost
        return Outcome(
            original, pruned, known, choice, plan, weights, solutions, cost, measured, checks
        )

    def refined(self, made: Outcome, targets: Sequence[Target], settings: Refine) -> Outcome:
        """A model with refined weights, and what is measured on it."""
        ground = self.ground
        refiner = Refiner(
            ground.original,
            ground.canonical,
            made.study.network,
            ground.with_copies,
            ground.parts,
            ground.options,
            ground.executor,
        )
        model, weights, done = refiner.refine(made.pruned, made.plan, made.weights, settings)
        measured, checks = self._judged(model, made.choice, targets)
        return replace(
            made, pruned=model, weights=weights, measured=measured, checks=checks, refinement=done
        )

    def _judged(
        self, pruned: onnx.ModelProto, choice: Choice, targets: Sequence[Target]
    ) -> tuple[Measured, list[Check]]:
        """What is measured on a model, and every target beside it."""
        known, judge = self.ground.study, self.ground.judge
        measured = judge.measure(pruned, latency=any(t.kind == "latency" for t in targets))
        sizes = known.sizes, known.counts(choice.counts)
        full, kept = (int(known.channels(counts)) for counts in sizes)
        return measured, judge.checks(targets, measured, full, kept)

    def recover(self, plan: Plan) -> Weights:
        """The weights that take over what a plan cuts, whoever has chosen it.

        Raises:
            PlanMismatchError: the plan is one of another model, or does not fit it.
        """
        require_plan_of(self.ground.original, self.ground.scope, plan)
        known = planned(self.ground.study, plan)
        counts = {edit.group: len(edit.keep) for edit in plan.keeps} | dict.fromkeys(plan.drops, 0)
        weights, _ = self._recovered(known, plan, counts)
        return weights

    def _recovered(
        self, known: Study, plan: Plan, counts: Mapping[str, int]
    ) -> tuple[Weights, dict[str, list[Solution]]]:
        """The consumers' new weights, what is added for sections, and how they were found."""
        options = self.ground.options
        sections = dropped(known, counts)
        in_order = options.composition.sequential
        others: dict[str, Recovery] = {}
        if in_order and isinstance(known.recovery, LeastSquares):
            alive = known.survivors(known.keeps(counts))
            start = start_of(self.ground.batches[0].indices.size)
            others = dict.fromkeys(solved_in_order(known, alive, sections), start)
        prior = prior_of(known, counts, known.recovery, others=others, progress=options.progress)
        if not in_order:
            weights = with_constants(prior.weights, known, sections)
            return replace(weights, plan=plan.fingerprint), prior.solutions
        (refitted,) = refit_in_order(
            known,
            [prior],
            known.recovery,
            *self.ground.batches,
            self.ground.executor,
            seed=options.seed,
            provider=options.provider,
            max_memory=options.frontier_memory,
        )
        weights = with_constants(refitted.weights, known, sections)
        return replace(weights, plan=plan.fingerprint), prior.solutions | refitted.solutions


def start_of(samples: int) -> Recovery:
    """How the weights are found that refits in order start from, with so many samples to fit on."""
    return BiasOnly() if samples < FEW_SAMPLES else FixedRidge(START_RIDGE)


def plan_of(model: onnx.ModelProto, known: Study, counts: Mapping[str, int]) -> Plan:
    """The plan of these counts, of some of a model's groups and sections; the rest stays whole."""
    sizes = {group.name: group.size for group in known.groups}
    keeps = known.keeps(counts)
    edits = [Keep(name, tuple(keep.tolist()), sizes[name]) for name, keep in keeps.items()]
    return Plan(digest(model), (*edits, *drops(known, counts)))


def planned(known: Study, plan: Plan) -> Study:
    """The study with the channels that a plan keeps first in their groups."""
    rankings = dict(known.rankings)
    for edit in plan.keeps:
        others = np.setdiff1d(np.arange(edit.size), edit.keep)
        order = np.concatenate([np.array(edit.keep, np.int64), others])
        rankings[edit.group] = replace(rankings[edit.group], order=order)
    return replace(known, rankings=rankings)


def require_plan_of(model: onnx.ModelProto, scope: Scope, plan: Plan) -> None:
    """Refuse a plan that does not fit, before the samples are run.

    Raises:
        PlanMismatchError: it is one of another model, or names what the model does not have.
    """
    if plan.model != digest(model):
        raise PlanMismatchError(OTHER_MODEL)
    kept_channels(scope.network, plan)
    chosen_sections(scope.sections, plan.drops, {})
