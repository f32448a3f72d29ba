"""From what a run made to its report: checks, distances, costs and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import onnx

from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration import Split
from onnxprune.choice import Choice
from onnxprune.cost import CostModel, parameter_count
from onnxprune.errors import ValidationError
from onnxprune.executor import Executor
from onnxprune.latency import Latency, interleaved_latency
from onnxprune.options import Options
from onnxprune.recovery import Solution
from onnxprune.report import Footprint, FrozenReport, GroupReport, Price, Report
from onnxprune.study import Batches, Study
from onnxprune.target import Target
from onnxprune.validation import compare


@dataclass(frozen=True)
class Outcome:
    """What the stages of a run made.

    Attributes:
        original: the model as it was read.
        pruned: the pruned model.
        study: what was learnt about it.
        choice: what was decided.
        solutions: consumer -> how its parts were recovered.
        cost: costs of the canonical model.
    """

    original: onnx.ModelProto
    pruned: onnx.ModelProto
    study: Study
    choice: Choice
    solutions: Mapping[str, Sequence[Solution]]
    cost: CostModel

    @property
    def plan_cuts(self) -> bool:
        """Whether any group lost channels."""
        return bool(self.study.keeps(self.choice.counts))


def describe(
    outcome: Outcome,
    targets: Sequence[Target],
    split: Split,
    held_out: Batches,
    sample: Feed,
    options: Options,
    executor: Executor,
) -> Report:
    """Measure the pruned model against the original and put everything into one record.

    Raises:
        ValidationError: the pruned model does not run, or its outputs are not numbers.
    """
    outputs = compare(outcome.original, outcome.pruned, held_out, executor, options.provider)
    for output in outputs:
        if not output.relative_error < float("inf"):
            raise ValidationError(
                f"output '{output.name}' of the pruned model, or of the original, is infinite or "
                "not a number on calibration samples; check that they are what the model expects"
            )
    models = (outcome.original, outcome.pruned)
    latencies: Sequence[Latency | None] = (None, None)
    if options.latency:
        latencies = interleaved_latency(
            models, sample, provider=options.provider, progress=options.progress
        )
    macs = (outcome.study.sizes, _counts(outcome))
    before, after = (
        Footprint(parameter_count(m), round(float(outcome.cost.macs(c))), m.ByteSize(), latency)
        for m, c, latency in zip(models, macs, latencies, strict=True)
    )
    return Report(
        settings=_settings(targets, options),
        samples={
            "fit": split.fit.size,
            "tune": split.tune.size,
            "held_out": split.held_out.size,
        },
        before=before,
        after=after,
        outputs=outputs,
        groups=[_group_report(outcome, name) for name in outcome.choice.counts],
        frozen=_frozen(outcome),
        notes=_notes(outcome, split),
    )


def _counts(outcome: Outcome) -> IndexArray:
    counts = outcome.choice.counts
    groups = outcome.study.network.groups
    return np.array([counts.get(group.name, group.size) for group in groups], np.int64)


def _settings(targets: Sequence[Target], options: Options) -> dict[str, object]:
    method = options.composition
    criterion = options.criterion or method.criterion
    return {
        "target": [str(target) for target in targets],
        "method": options.method,
        "criterion": criterion if isinstance(criterion, str) else repr(criterion),
        "allocation": method.allocation,
        "recovery": method.recovery,
        "align": options.align,
        "include": options.include,
        "exclude": options.exclude,
        "provider": options.provider,
        "num_samples": options.num_samples,
        "batch": options.batch,
        "seed": options.seed,
        "versions": {name: version(name) for name in ("onnxprune", "onnx", "numpy", "scipy")},
    }


def _group_report(outcome: Outcome, name: str) -> GroupReport:
    study, choice = outcome.study, outcome.choice
    group = next(g for g in study.groups if g.name == name)
    allowed = study.allowed[name]
    errors = study.rankings[name].error[allowed]
    law = choice.laws.get(name)
    damage = [None] * allowed.size if law is None else law(errors).tolist()
    keep = study.keeps(choice.counts).get(name)
    return GroupReport(
        name=name,
        size=group.size,
        keep=list(range(group.size)) if keep is None else keep.tolist(),
        curve=[Price(*p) for p in zip(allowed.tolist(), errors.tolist(), damage, strict=True)],
        consumers={
            consumer: _recovered(outcome.solutions[consumer])
            for consumer in (*group.consumers, *group.contractions)
            if consumer in outcome.solutions
        },
    )


def _recovered(parts: Sequence[Solution]) -> tuple[float | None, str]:
    """Mean error over the parts of a consumer on tuning samples, and what was done."""
    labels = ", ".join(dict.fromkeys(solution.label for solution in parts))
    errors = [solution.tune_error for solution in parts if solution.tune_error is not None]
    return (sum(errors) / len(errors) if errors else None), labels


def _frozen(outcome: Outcome) -> list[FrozenReport]:
    total = float(outcome.cost.macs(outcome.study.sizes)) or 1.0
    rows = [
        FrozenReport(
            f.producer,
            f.frozen,
            f.size,
            f.reason,
            outcome.cost.node_macs.get(f.producer, 0.0) / total,
        )
        for f in outcome.study.network.frozen
    ]
    return sorted(rows, key=lambda row: -row.macs_share)


def _notes(outcome: Outcome, split: Split) -> list[str]:
    notes = [split.note] if split.note else []
    if not outcome.plan_cuts:
        notes.append("nothing was cut: the model meets the targets as it is")
    thin = outcome.study.thin_layers()
    if thin:
        notes.append(
            f"few calibration rows for {len(thin)} consumers ({', '.join(thin[:3])}"
            f"{', ...' if len(thin) > 3 else ''}); more samples would recover them better"
        )
    before = {node.op_type for node in outcome.original.graph.node}
    subgraphs = sorted(before & {"If", "Loop", "Scan"})
    if subgraphs:
        notes.append(f"what {', '.join(subgraphs)} compute inside was left as it is")
    return notes
