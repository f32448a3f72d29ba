"""The main path: a model and samples in, a smaller model out. Read this first.

``prune`` goes through these stages, each a module of its own:

    groundwork   the next four, and the samples
    canonical    one way of writing what exporters write in many
    groups       which channels must be kept or removed together
    scope        which of them may be cut, how far
    study        Gram matrices of what the consumers read; the order in which channels go
    pursuit      whether the targets can be reached
    search       all that follows, until the targets are measured to hold on the result
    choice       how many channels every group keeps under the targets; which sections go
    finishing    the next five
    refit        the consumers' new weights
    rewrite      the smaller model
    refining     its weights trained to say what the original says, if that is asked for
    measurement  what it costs, and how far it is from the original
    validation   whether the file is sound
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import onnx

from onnxprune.arrays import Feed
from onnxprune.blame import blamed
from onnxprune.blas_threads import one_thread
from onnxprune.calibration import CalibrationSource
from onnxprune.description import describe
from onnxprune.finishing import Finisher
from onnxprune.forecast import Forecast
from onnxprune.foresight import foresee
from onnxprune.frontier import Frontier
from onnxprune.groundwork import Groundwork
from onnxprune.metadata import stamp
from onnxprune.model import file_bytes, load, pending
from onnxprune.options import Options
from onnxprune.plan import Plan, Weights
from onnxprune.provenance import file_sha256, origin, record_of, weighed
from onnxprune.pursuit import Pursuit
from onnxprune.report import Report
from onnxprune.rewrite import apply
from onnxprune.sweep import Budget, Sweep
from onnxprune.target import SAFE_ERROR, Target
from onnxprune.validation import check_file

DEFAULT_OPTIONS = Options()


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
        self._ground = Groundwork(model, calibration, options)

    def prune(self, targets: Sequence[Target] = ()) -> Result:
        """Prune to these targets; see ``prune``.

        Raises:
            ValueError: there are targets although the options fix the counts.
        """
        self._ground.options.require_choice(targets)
        with one_thread(), blamed(self._ground.original):
            return self._pruned(targets)

    def plan(self, targets: Sequence[Target] = ()) -> Forecast:
        """What ``prune`` would cut first, and what is predicted of it; no model is made.

        Raises:
            TargetError: the targets cannot be reached.
            ValueError: there are targets although the options fix the counts.
        """
        self._ground.options.require_choice(targets)
        with one_thread(), blamed(self._ground.original):
            return foresee(self._ground, asked(targets, self._ground.options), targets)

    def sweep(self, budgets: Sequence[Budget], folder: str | Path) -> Frontier:
        """A model for each budget in a folder, and what they cost and do, side by side.

        What the folder holds of an earlier sweep of the same model, samples and settings is kept.

        Args:
            budgets: targets that hold together, for each model; ``sweep.budgets_of`` reads them.
            folder: where the models go; it exists.

        Raises:
            OnnxPruneError: the folder cannot be written, or the metric fails. A budget that cannot
                be reached is a point without a model.
        """
        return Sweep(self._ground, self.prune, Path(folder)).run(budgets)

    def _pruned(self, targets: Sequence[Target]) -> Result:
        started = datetime.now(timezone.utc).astimezone()
        ground, options = self._ground, self._ground.options
        outcome = Pursuit(ground, asked(targets, options)).run()
        if options.latency:
            timed = ground.judge.timed_too(outcome.measured, outcome.pruned)
            outcome = replace(outcome, measured=timed)
        report = describe(
            outcome,
            targets,
            ground.parts,
            options,
            ground.judge.metric,
            ground.doubts,
            model=ground.name,
            started=started,
        )
        record = record_of(report, outcome.plan, len(outcome.weights.arrays), ground.file_sha256)
        stamp(outcome.pruned, record)
        report = weighed(report, file_bytes(outcome.pruned))
        report = replace(report, notes=[*report.notes, *ground.memory.notes])
        return Result(
            outcome.pruned,
            replace(outcome.plan, record=record),
            outcome.weights,
            report,
            ground.original,
            ground.sample,
            options,
        )


def recover(
    model: str | Path | onnx.ModelProto,
    plan: Plan,
    calibration: CalibrationSource,
    options: Options = DEFAULT_OPTIONS,
) -> Weights:
    """Weights that take over what a plan cuts, whoever has chosen its channels.

    Args:
        model: the model the plan was made for, or its path; it is left as it is.
        plan: what to cut.
        calibration: unlabelled samples, in any form ``load_calibration`` reads.
        options: settings; what chooses channels and counts is not looked at.

    Raises:
        PlanMismatchError: the plan belongs to another model, or does not fit it.
        CalibrationError: the samples do not fit the model.
    """
    # the order of the channels is the plan's; this is the criterion that takes no time
    settings = replace(options, criterion="l2", sections=bool(plan.drops))
    ground = Groundwork(model, calibration, settings)
    with one_thread(), blamed(ground.original):
        return Finisher(ground).recover(plan)


def asked(targets: Sequence[Target], options: Options) -> list[Target]:
    """The targets, or the one that is meant where neither they nor the options say anything."""
    given = list(targets)
    return given or ([Target("error", SAFE_ERROR)] if options.level is None else [])


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
    with blamed(original):
        pruned = apply(original, plan, weights or Weights({}))
    with pending(pruned, Path(output)) as temporary:
        check_file(temporary, original)
