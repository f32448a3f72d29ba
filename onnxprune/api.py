"""The main path: a model and samples in, a smaller model out. Read this first.

``prune`` goes through these stages, each a module of its own:

    canonical    one way of writing what exporters write in many
    groups       which channels must be kept or removed together
    scope        which of them may be cut, how far; whether the targets can be reached
    study        Gram matrices of what the consumers read; the order in which channels go
    search       the next four, until the targets are measured to hold on the result
    choice       how many channels every group keeps under the targets; which sections go
    refit        the consumers' new weights
    rewrite      the smaller model
    refining     its weights trained to say what the original says, if that is asked for
    measurement  what it costs, and how far it is from the original
    validation   whether the file is sound
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import onnx

from onnxprune.allocation import Bound, Costs
from onnxprune.arrays import Feed
from onnxprune.blas_threads import one_thread
from onnxprune.bounds import FileSizes, bounds_of
from onnxprune.calibration import CalibrationSource, split
from onnxprune.canonical import canonicalise
from onnxprune.choice import Choice, Chooser
from onnxprune.cost import cost_model, parameter_count
from onnxprune.executor import Executor, InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import learnt_statistics, open_samples
from onnxprune.latency_cost import latency_cost
from onnxprune.measurement import Judge, Measured, judge_of, require_sense
from onnxprune.metadata import RESERVED, stamp
from onnxprune.model import file_bytes, load, pending
from onnxprune.options import Options
from onnxprune.outcome import Outcome, describe
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.provenance import file_sha256, origin, record_of, weighed
from onnxprune.recovery import Solution
from onnxprune.refinement import Refine
from onnxprune.refining import Refiner, require_refinable
from onnxprune.report import Report
from onnxprune.rewrite import apply, digest
from onnxprune.scope import Scope, prunable_groups
from onnxprune.search import ROUNDS, Search, require_held
from onnxprune.section_choice import droppable_sections, dropped, drops, prior_of, with_constants
from onnxprune.sequential import refit_in_order
from onnxprune.study import Batches, Study, study
from onnxprune.target import SAFE_ERROR, Target
from onnxprune.validation import check_file
from onnxprune.verdict import Check

DEFAULT_OPTIONS = Options()
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run made.

    Attributes:
        model: the pruned model.
        plan: what was cut; with ``weights`` and the original it makes ``model`` again.
        weights: the consumers' recovered weights, and what training has made of them all.
        report: what it cost and what it brought.
    """

    model: onnx.ModelProto = field(repr=False)
    plan: Plan = field(repr=False)
    weights: Weights = field(repr=False)
    report: Report
    _original: onnx.ModelProto = field(repr=False)
    _sample: Feed = field(repr=False)
    _options: Options

    def save(self, path: str | Path) -> None:
        """Validate the pruned model as a file and move it to ``path`` if it passes.

        Raises:
            ValidationError: it fails a check; ``path`` is left as it was.
            OnnxPruneError: the file cannot be written.
        """
        with pending(self.model, Path(path)) as temporary:
            check_file(temporary, self._original, self._sample, self._options.provider)


def prune(
    model: str | Path | onnx.ModelProto,
    calibration: CalibrationSource | None,
    target: Target | Sequence[Target] = (),
    *,
    options: Options = DEFAULT_OPTIONS,
) -> Result:
    """Prune a model without fine-tuning.

    Args:
        model: the trained model, or its path; it is left as it is.
        calibration: unlabelled samples, in any form ``load_calibration`` reads; None if the
            options give learnt statistics, beside which a few samples lie.
        target: what the pruned model may cost; all targets hold. Without any, the largest pruning
            whose outputs stay within a small relative error of the original's.
        options: settings.

    Returns:
        The pruned model with its plan, weights and report. Nothing is written.

    Raises:
        UnsupportedModelError: the model cannot be read, has nothing to prune, or has an operator
            that cannot be refined although that is asked for.
        CalibrationError: the samples do not fit the model.
        MissingLibraryError: a refinement is asked for, and torch is missing.
        TargetError: the targets cannot be reached.
        ValidationError: the pruned model is not sound.
        ValueError: there are targets although the options fix the counts.
    """
    targets = [target] if isinstance(target, Target) else list(target)
    return Pruner(model, calibration, options).prune(targets)


class Pruner:
    """A model and its samples, studied once and pruned as often as asked.

    Args:
        model: the trained model, or its path; it is left as it is.
        calibration: unlabelled samples, in any form ``load_calibration`` reads; None as for
            ``prune``.
        options: settings.

    Raises:
        UnsupportedModelError: the model cannot be read or has nothing to prune.
        CalibrationError: the samples, or the learnt statistics, do not fit the model.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        calibration: CalibrationSource | None,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        self._options = options
        self._original = model if isinstance(model, onnx.ModelProto) else load(model)
        self._file = file_sha256(model)
        self._learnt = learnt_statistics(self._original, options)
        self._canonical = canonicalise(self._original)
        network = find_groups(self._canonical)
        groups = prunable_groups(network, options)
        require_refinable(self._canonical, options)
        samples = open_samples(self._original, calibration, options, self._learnt)
        logger.info("%s", samples.summary())
        self._samples = samples
        extent = samples.batch_extent or 1
        self._parts = split(len(samples), options.seed, batch_extent=extent)
        if options.refine is not None:
            self._parts = self._parts.with_choice(options.seed, batch_extent=extent)
        self._executor: Executor = InProcess(options.progress)
        self._sample = next(iter(Batches(samples, self._parts.held_out, 1)))
        shapes = {name: array.shape for name, array in self._sample.items()}
        sections = droppable_sections(network, self._canonical, options)
        cost = cost_model(network, self._canonical, shapes, sections)
        self._cost = cost.per_sample(extent)
        self._scope = Scope.of(network, groups, options.composition.align, sections)

    @cached_property
    def _study(self) -> Study:
        """What is learnt from the samples, once it is certain that a target can be reached."""
        options, parts = self._options, self._parts
        return study(
            self._canonical,
            self._scope,
            self._samples,
            parts,
            options,
            self._executor,
            self._learnt,
        )

    @cached_property
    def _chooser(self) -> Chooser:
        return Chooser(self._study, *self._batches, self._options, self._executor)

    @property
    def _batches(self) -> tuple[Batches, Batches]:
        """The samples to fit on, and those to tune on."""
        samples, size = self._samples, self._options.batch
        fit, tune = (Batches(samples, i, size) for i in (self._parts.fit, self._parts.tune))
        return fit, tune

    def prune(self, targets: Sequence[Target] = ()) -> Result:
        """Prune to these targets; see ``prune``.

        Raises:
            ValueError: there are targets although the options fix the counts.
        """
        self._options.require_choice(targets)
        with one_thread():
            return self._pruned(targets)

    def _pruned(self, targets: Sequence[Target]) -> Result:
        level = self._options.level
        if level is None:
            outcome = self._found(list(targets) or [Target("error", SAFE_ERROR)])
        else:
            outcome = self._finish(self._chooser.at_share(level), targets)
            if self._options.refine is not None:
                outcome = self._refined(outcome, targets, self._options.refine)
        if self._options.latency:
            timed = self._judge.timed_too(outcome.measured, outcome.pruned)
            outcome = replace(outcome, measured=timed)
        report = describe(outcome, targets, self._parts, self._options, self._judge.metric)
        record = record_of(report, outcome.plan, len(outcome.weights.arrays), self._file)
        stamp(outcome.pruned, record)
        return Result(
            outcome.pruned,
            replace(outcome.plan, record=record),
            outcome.weights,
            weighed(report, file_bytes(outcome.pruned)),
            self._original,
            self._sample,
            self._options,
        )

    def _found(self, targets: Sequence[Target]) -> Outcome:
        """The model on which the targets hold, refined if that is asked for.

        What a model costs does not change when it is refined, so that targets on costs are pursued
        without; the model that is found is refined, and all targets are judged on that. Damage
        does change: where it alone is bounded, every model that is measured is refined, each with
        a part of the budget.

        Raises:
            TargetError: the targets hold on none, or cannot.
        """
        costs = [target for target in targets if target.is_cost]
        refine = self._options.refine
        if refine is None:
            return self._search(targets, lambda choice: self._finish(choice, targets)).run()
        if not costs:
            part = replace(refine, budget=refine.budget.divided(ROUNDS))

            def refined(choice: Choice) -> Outcome:
                return self._refined(self._finish(choice, ()), targets, part)

            return self._search(targets, refined).run()
        search = self._search(targets, lambda choice: self._finish(choice, costs))
        outcome = self._refined(search.run(), targets, refine)
        require_held(outcome.checks)
        return outcome

    def _search(
        self, targets: Sequence[Target], finish: Callable[[Choice], Outcome]
    ) -> Search[Outcome]:
        """The search for a model on which the targets hold, before any sample is run."""
        scope, cost = self._scope, self._cost
        require_sense(targets, self._judge)
        costs = [target for target in targets if target.is_cost]
        bounds = bounds_of(
            costs,
            cost,
            scope.sizes,
            scope.channels,
            parameter_count(self._original),
            files=FileSizes(file_bytes(self._original), file_bytes(self._canonical) + RESERVED),
            latency=self._predicted_latency,
        )
        scope.require_reachable(bounds)  # before the samples are run, not after
        only_time = [t.kind for t in costs] == ["latency"]
        damages = [target for target in targets if not target.is_cost]
        return Search(
            self._chooser,
            Bound("macs", cost.macs, 0.0, float(cost.macs(scope.sizes))),
            dict(zip(costs, bounds, strict=True)),
            {g.target: g for g in self._chooser.gauges(damages, self._judge.metric)},
            finish,
            lambda bound, counts: float(bound.cost(scope.counts(counts))),
            scope.useful(bounds[0]) if only_time else scope.allowed,
        )

    def _finish(self, choice: Choice, targets: Sequence[Target]) -> Outcome:
        """The model of a choice, and what is measured on it."""
        known, original = self._study, self._original
        counts = choice.counts
        plan = plan_of(original, known, counts)
        weights, solutions = self._recovered(counts)
        pruned = apply(original, plan, weights)
        measured, checks = self._judged(pruned, choice, targets)
        return Outcome(
            original, pruned, known, choice, plan, weights, solutions, self._cost, measured, checks
        )

    def _refined(self, made: Outcome, targets: Sequence[Target], settings: Refine) -> Outcome:
        """A model with refined weights, and what is measured on it."""
        refiner = Refiner(
            self._original,
            self._canonical,
            made.study.network,
            self._samples,
            self._parts,
            self._options,
            self._executor,
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
        known, timed = self._study, any(target.kind == "latency" for target in targets)
        measured = self._judge.measure(pruned, latency=timed)
        sizes = known.sizes, known.counts(choice.counts)
        full, kept = (int(known.channels(counts)) for counts in sizes)
        return measured, self._judge.checks(targets, measured, full, kept)

    @cached_property
    def _judge(self) -> Judge:
        macs = round(float(self._cost.macs(self._scope.sizes)))
        samples, parts = self._samples, self._parts
        return judge_of(self._original, macs, samples, parts, self._options, self._executor)

    def _predicted_latency(self) -> Costs:
        return latency_cost(
            self._scope.network,
            self._canonical,
            self._judge.timed,
            sections=self._scope.sections,
            provider=self._options.provider,
            threads=self._options.threads,
            progress=self._options.progress,
        )

    def _recovered(self, counts: Mapping[str, int]) -> tuple[Weights, dict[str, list[Solution]]]:
        """The consumers' new weights, what is added for sections, and how they were found."""
        known, options = self._study, self._options
        sections = dropped(known, counts)
        prior = prior_of(known, counts, known.recovery, progress=options.progress)
        if not options.composition.sequential:
            return with_constants(prior.weights, known, sections), prior.solutions
        (refitted,) = refit_in_order(
            known,
            [prior],
            known.recovery,
            *self._batches,
            self._executor,
            seed=options.seed,
            provider=options.provider,
            max_memory=options.frontier_memory,
        )
        weights = with_constants(refitted.weights, known, sections)
        return weights, prior.solutions | refitted.solutions


def plan_of(model: onnx.ModelProto, known: Study, counts: Mapping[str, int]) -> Plan:
    """The plan of these counts, of some of a model's groups and sections; the rest stays whole."""
    sizes = {group.name: group.size for group in known.groups}
    keeps = known.keeps(counts)
    edits = [Keep(name, tuple(keep.tolist()), sizes[name]) for name, keep in keeps.items()]
    return Plan(digest(model), (*edits, *drops(known, counts)))


def apply_plan(
    model: str | Path, plan: Plan, output: str | Path, weights: Weights | None = None
) -> None:
    """Cut a model as a saved plan says and write it; no samples are needed.

    Args:
        model: path of the model the plan was made for.
        plan: what to cut.
        output: where the pruned model goes; it appears only if it is valid and loads.
        weights: recovered weights; None for slices of the model's own.

    Raises:
        PlanMismatchError: plan or weights belong to another model.
        ValidationError: the result is not sound.
    """
    original = load(model)
    if not plan.record:
        plan = replace(plan, record=origin(plan, file_sha256(model)))
    pruned = apply(original, plan, weights or Weights({}))
    with pending(pruned, Path(output)) as temporary:
        check_file(temporary, original)
