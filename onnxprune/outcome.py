"""From what a run made and measured to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import onnx

from onnxprune.calibration import Split
from onnxprune.choice import Choice
from onnxprune.cost import CostModel
from onnxprune.criteria.spectra import Spectrum, components, pivots
from onnxprune.measurement import Measured
from onnxprune.metric import Metric
from onnxprune.network import ChannelGroup
from onnxprune.options import Options
from onnxprune.plan import Plan, Weights
from onnxprune.problems import group_problem
from onnxprune.recovery import Solution
from onnxprune.refinement import Refinement
from onnxprune.report import (
    FrozenReport,
    GroupReport,
    MetricReport,
    Price,
    Report,
    SectionReport,
)
from onnxprune.section_choice import dropped
from onnxprune.sections import dropped_groups
from onnxprune.study import Study
from onnxprune.target import Target
from onnxprune.verdict import Check

NOISE = 0.03
"""Medians of times that differ by no more, as a fraction, are taken as equal."""


@dataclass(frozen=True)
class Outcome:
    """What the stages of a run made.

    Attributes:
        original: the model as it was read.
        pruned: the pruned model.
        study: what was learnt about it.
        choice: what was decided.
        plan: what was cut.
        weights: the consumers' recovered weights.
        solutions: consumer -> how its parts were recovered.
        cost: costs of the canonical model.
        measured: what was measured on the pruned model.
        checks: every target beside that.
        refinement: what training did to the weights; None without.
    """

    original: onnx.ModelProto
    pruned: onnx.ModelProto
    study: Study
    choice: Choice
    plan: Plan
    weights: Weights
    solutions: Mapping[str, Sequence[Solution]]
    cost: CostModel
    measured: Measured
    checks: Sequence[Check]
    refinement: Refinement | None = None

    @property
    def macs(self) -> float:
        """Multiply-accumulates of the pruned model."""
        return self.measured.after.macs

    @property
    def plan_cuts(self) -> bool:
        """Whether any group lost channels, or a section went."""
        counts = self.choice.counts
        return bool(self.study.keeps(counts) or dropped(self.study, counts))


def describe(
    outcome: Outcome,
    targets: Sequence[Target],
    split: Split,
    options: Options,
    metric: Metric | None = None,
    doubts: Sequence[str] = (),
) -> Report:
    """Put everything about a run into one record.

    Args:
        outcome: what the stages made.
        targets: what was asked for.
        split: which samples were for what.
        options: settings.
        metric: the user's.
        doubts: what is odd about the samples.
    """
    measured = outcome.measured
    return Report(
        settings=_settings(targets, options),
        samples=_samples(split),
        before=measured.before,
        after=measured.after,
        outputs=measured.outputs,
        targets=outcome.checks,
        metric=_metric(metric, measured),
        sections=_sections(outcome),
        share=outcome.choice.share,
        groups=_groups(outcome, options),
        frozen=_frozen(outcome),
        notes=[*doubts, *_notes(outcome, split), *_coarse(targets, options, split)],
        refinement=outcome.refinement,
    )


def _samples(split: Split) -> dict[str, int]:
    used = {"fit": split.fit, "tune": split.tune, "choose": split.choose}
    sizes = {name: int(indices.size) for name, indices in used.items() if indices.size}
    return sizes | {"held_out": int(split.held_out.size)}


def _coarse(targets: Sequence[Target], options: Options, split: Split) -> list[str]:
    """A warning where one label more or less is more than the drop that is allowed."""
    allowed = [target.value for target in targets if target.kind == "drop"]
    step = 1 / split.held_out.size
    if options.labels is None or not allowed or min(allowed) >= step:
        return []
    size = split.held_out.size
    note = f"{size} held-out labels tell an accuracy to {step:.1%} only; more samples, or --eval"
    return [f"{note} on a set of your own, tell more"]


def _metric(metric: Metric | None, measured: Measured) -> MetricReport | None:
    if metric is None or measured.metric is None:
        return None
    return MetricReport(metric.name, *measured.metric)


def _settings(targets: Sequence[Target], options: Options) -> dict[str, object]:
    method = options.composition
    criterion = options.criterion or method.criterion
    return {
        "target": [str(target) for target in targets],
        "method": options.method,
        "criterion": criterion if isinstance(criterion, str) else repr(criterion),
        "allocation": method.allocation,
        "recovery": method.recovery,
        "sequential": method.sequential,
        "order": options.settings.order,
        "moments": options.settings.moments,
        "cutoff": options.cutoff,
        "information": options.information,
        "statistics": "samples" if options.statistics is None else "learnt",
        "align": method.align,
        "include": options.include,
        "exclude": options.exclude,
        "sections": options.sections,
        "refine": None if options.refine is None else options.refine.settings(),
        "provider": options.provider,
        "num_samples": options.num_samples,
        "mask": options.mask,
        "batch": options.batch,
        "threads": options.threads,
        "latency_batch": options.latency_batch,
        "latency_shape": options.latency_shape and dict(options.latency_shape),
        "seed": options.seed,
        "versions": {name: version(name) for name in ("onnxprune", "onnx", "numpy", "scipy")},
    }


def _sections(outcome: Outcome) -> list[SectionReport]:
    study, node_macs = outcome.study, outcome.cost.node_macs
    total = sum(node_macs.values()) or 1.0
    return [
        SectionReport(
            section.name,
            section.branch,
            sorted(dropped_groups([section], study.groups)),
            sum(node_macs.get(node, 0.0) for node in section.branch) / total,
            outcome.choice.drops.get(section.name),
        )
        for section in dropped(study, outcome.choice.counts)
    ]


def _groups(outcome: Outcome, options: Options) -> list[GroupReport]:
    study = outcome.study
    gone = dropped_groups(dropped(study, outcome.choice.counts), study.groups)
    return [_group_report(outcome, g, options) for g in study.groups if g.name not in gone]


def _group_report(outcome: Outcome, group: ChannelGroup, options: Options) -> GroupReport:
    study, choice, name = outcome.study, outcome.choice, group.name
    allowed = study.allowed[name]
    errors = study.rankings[name].error[allowed]
    law = choice.laws.get(name)
    damage = [None] * allowed.size if law is None else law(errors).tolist()
    keep = study.keeps(choice.counts).get(name)
    problem = group_problem(group, study.network, study.layers)
    spectrum = Spectrum(
        pivots(problem, study.rankings[name].order).tolist(),
        components(problem, options.settings.moments).tolist(),
    )
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
        spectrum=spectrum,
        residual=None if law is None else law.residual,
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


def _speed(outcome: Outcome) -> list[str]:
    """A warning where cutting did not make the model faster."""
    before, after = outcome.measured.before.latency, outcome.measured.after.latency
    if not (before and after and outcome.plan_cuts and after.median > before.median):
        return []
    word = "slower" if after.median > (1 + NOISE) * before.median else "no faster"
    times = f"{before.median:.3f} ms became {after.median:.3f} ms"
    return [f"the pruned model is {word}: {times}; give --target latency=0.8 to have time decide"]


def _notes(outcome: Outcome, split: Split) -> list[str]:
    notes = [split.note] if split.note else []
    if not outcome.plan_cuts:
        notes.append("nothing was cut: the model meets the targets as it is")
    notes += _speed(outcome)
    thin = outcome.study.thin_layers()
    if thin:
        notes.append(
            f"few calibration rows for {len(thin)} consumers ({', '.join(thin[:3])}"
            f"{', ...' if len(thin) > 3 else ''}); more samples would recover them better"
        )
    operators = {node.op_type for node in outcome.original.graph.node}
    subgraphs = sorted(operators & {"If", "Loop", "Scan"})
    if subgraphs:
        notes.append(f"what {', '.join(subgraphs)} compute inside was left as it is")
    return notes
