"""The main path: a model and samples in, a smaller model out. Read this first.

``prune`` goes through these stages, each a module of its own:

    canonical    one way of writing what exporters write in many
    groups       which channels must be kept or removed together
    scope        which of them may be cut, how far; whether the targets can be reached
    study        Gram matrices of what the consumers read; the order in which channels go
    choice       how many channels every group keeps under the targets
    refit        the consumers' new weights
    rewrite      the smaller model
    validation   whether it is sound, and how far it is from the original
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from onnxprune.allocation import Bound
from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration import (
    Calibration,
    CalibrationSource,
    InputSpec,
    load_calibration,
    split,
)
from onnxprune.canonical import canonicalise
from onnxprune.choice import Chooser
from onnxprune.cost import CostModel, cost_model, parameter_count
from onnxprune.errors import UnsupportedModelError
from onnxprune.executor import Executor, InProcess
from onnxprune.groups import find_groups
from onnxprune.model import load, pending
from onnxprune.network import ChannelGroup, Network
from onnxprune.options import Options
from onnxprune.outcome import Outcome, describe
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.recovery import Solution
from onnxprune.refit import refit
from onnxprune.report import Report
from onnxprune.rewrite import apply, digest
from onnxprune.scope import Scope
from onnxprune.sequential import refit_in_order
from onnxprune.study import Batches, Study, study
from onnxprune.target import Target, bounds_of
from onnxprune.validation import check_file

DEFAULT_OPTIONS = Options()
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run made.

    Attributes:
        model: the pruned model.
        plan: what was cut; with ``weights`` and the original it makes ``model`` again.
        weights: the consumers' recovered weights.
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
    calibration: CalibrationSource,
    target: Target | Sequence[Target] = (),
    *,
    options: Options = DEFAULT_OPTIONS,
) -> Result:
    """Prune a model without fine-tuning.

    Args:
        model: the trained model, or its path; it is left as it is.
        calibration: unlabelled samples, in any form ``load_calibration`` reads.
        target: what the pruned model may cost; all targets hold. Without any, the largest pruning
            whose outputs stay within a small relative error of the original's.
        options: settings.

    Returns:
        The pruned model with its plan, weights and report. Nothing is written.

    Raises:
        UnsupportedModelError: the model cannot be read or has nothing to prune.
        CalibrationError: the samples do not fit the model.
        TargetError: the targets cannot be reached.
        ValidationError: the pruned model is not sound.
    """
    targets = [target] if isinstance(target, Target) else list(target)
    return Pruner(model, calibration, options).prune(targets)


class Pruner:
    """A model and its samples, studied once and pruned as often as asked.

    Args:
        model: the trained model, or its path; it is left as it is.
        calibration: unlabelled samples, in any form ``load_calibration`` reads.
        options: settings.

    Raises:
        UnsupportedModelError: the model cannot be read or has nothing to prune.
        CalibrationError: the samples do not fit the model.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        calibration: CalibrationSource,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        self._options = options
        self._original = model if isinstance(model, onnx.ModelProto) else load(model)
        self._canonical = canonicalise(self._original)
        network = find_groups(self._canonical)
        groups = prunable_groups(network, options)
        samples = open_samples(self._original, calibration, options)
        logger.info("%s", samples.summary())
        self._samples = samples
        self._parts = split(len(samples), options.seed, batch_extent=samples.batch_extent or 1)
        self._executor: Executor = InProcess(options.progress)
        self._sample = next(iter(Batches(samples, self._parts.held_out, 1)))
        shapes = {name: array.shape for name, array in self._sample.items()}
        cost = cost_model(network, self._canonical, shapes)
        self._cost = _per_sample(cost, samples.batch_extent or 1)
        self._scope = Scope.of(network, groups, options.align)

    @cached_property
    def _study(self) -> Study:
        """What is learnt from the samples, once it is certain that a target can be reached."""
        options, parts = self._options, self._parts
        return study(self._canonical, self._scope, self._samples, parts, options, self._executor)

    @cached_property
    def _chooser(self) -> Chooser:
        tune = Batches(self._samples, self._parts.tune, self._options.batch)
        return Chooser(self._study, tune, self._options, self._executor)

    def prune(self, targets: Sequence[Target] = ()) -> Result:
        """Prune to these targets; see ``prune``."""
        scope, cost, original = self._scope, self._cost, self._original
        bounds = bounds_of(targets, cost, scope.sizes, scope.places, parameter_count(original))
        scope.require_reachable(bounds)  # before the samples are run, not after
        known = self._study
        macs = Bound("macs", cost.macs, 0.0, float(cost.macs(known.sizes)))
        choice = self._chooser.choose(bounds, macs)
        keeps = known.keeps(choice.counts)
        plan = plan_of(original, known.groups, keeps)
        weights, solutions = self._recovered(keeps)
        pruned = apply(original, plan, weights)
        outcome = Outcome(original, pruned, known, choice, solutions, cost)
        held_out = Batches(self._samples, self._parts.held_out, self._options.batch)
        report = describe(
            outcome, targets, self._parts, held_out, self._sample, self._options, self._executor
        )
        return Result(pruned, plan, weights, report, original, self._sample, self._options)

    def _recovered(
        self, keeps: Mapping[str, IndexArray]
    ) -> tuple[Weights, dict[str, list[Solution]]]:
        """The consumers' new weights, and how they were found."""
        known, options = self._study, self._options
        prior = refit(
            known.views,
            known.layers,
            known.survivors(keeps),
            known.recovery,
            known.contractions,
            progress=options.progress,
        )
        if not options.composition.sequential:
            return prior.weights, prior.solutions
        fit, tune = (
            Batches(self._samples, indices, options.batch)
            for indices in (self._parts.fit, self._parts.tune)
        )
        (refitted,) = refit_in_order(
            known,
            [prior],
            known.recovery,
            fit,
            tune,
            self._executor,
            seed=options.seed,
            provider=options.provider,
        )
        return refitted.weights, prior.solutions | refitted.solutions


def plan_of(
    model: onnx.ModelProto, groups: Sequence[ChannelGroup], keeps: Mapping[str, IndexArray]
) -> Plan:
    """The plan that keeps these units of a model's groups; groups without a keep stay whole."""
    edits = [Keep(g.name, tuple(keeps[g.name].tolist()), g.size) for g in groups if g.name in keeps]
    return Plan(digest(model), tuple(edits))


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
    pruned = apply(original, plan, weights or Weights({}))
    with pending(pruned, Path(output)) as temporary:
        check_file(temporary, original)


def prunable_groups(network: Network, options: Options) -> list[ChannelGroup]:
    """The groups of a network that the options let be cut.

    Raises:
        UnsupportedModelError: there are none; the message says why.
    """
    wide = [group for group in network.groups if group.size > group.part_count]
    chosen = [g for g in wide if options.selects((g.name, *g.producers))]
    if chosen:
        return chosen
    if wide:
        names = [f"'{group.name}'" for group in wide[:5]] + ["..."] * (len(wide) > 5)
        raise UnsupportedModelError(
            f"--include and --exclude leave none of the channel groups: {', '.join(names)}"
        )
    reasons = "; ".join(f"'{f.producer}': {f.reason}" for f in network.frozen[:5])
    why = reasons or "it has no Conv, ConvTranspose, Gemm, MatMul or recurrent layer"
    raise UnsupportedModelError(f"nothing in the model can be pruned ({why})")


def _per_sample(cost: CostModel, batch: int) -> CostModel:
    """The costs of a model that is fixed to a batch size, MACs for one of its samples."""
    macs = cost.macs.scaled(1 / batch)
    node_macs = {name: count / batch for name, count in cost.node_macs.items()}
    return replace(cost, macs=macs, node_macs=node_macs)


def open_samples(
    model: onnx.ModelProto, calibration: CalibrationSource, options: Options
) -> Calibration:
    """The calibration samples, checked against a model's inputs.

    Raises:
        CalibrationError: they do not fit.
    """
    return load_calibration(
        calibration,
        input_specs(model),
        preprocessing=options.preprocessing,
        num_samples=options.num_samples,
        seed=options.seed,
    )


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The graph inputs a caller has to feed: all but initializers."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in initializers:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise UnsupportedModelError(
                f"graph input '{value.name}' is not a tensor with a known number of axes"
            )
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim
        )
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if kind.elem_type == onnx.TensorProto.BFLOAT16:  # which NumPy lacks
            dtype = np.dtype(np.float32)
        specs.append(InputSpec(value.name, shape, dtype))
    return specs
