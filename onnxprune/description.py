"""From what a run made and measured to its report."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

import onnx

from onnxprune.calibration import Split
from onnxprune.choice import Choice
from onnxprune.cost import CostModel
from onnxprune.criteria.spectra import Spectrum, components, pivots
from onnxprune.measurement import Measured
from onnxprune.metric import Metric
from onnxprune.network import FROZEN, ChannelGroup, Network
from onnxprune.options import Options
from onnxprune.outcome import Outcome
from onnxprune.problems import group_problem
from onnxprune.recovery import Solution
from onnxprune.report import Report
from onnxprune.report_parts import (
    ConsumerReport,
    FrozenReport,
    GroupReport,
    LayerReport,
    MetricReport,
    Price,
    Run,
    SectionReport,
)
from onnxprune.rewrite import digest
from onnxprune.runtime import VERSION
from onnxprune.section_choice import dropped
from onnxprune.sections import dropped_groups
from onnxprune.study import Study
from onnxprune.target import Target

NOISE = 0.03
"""Medians of times that differ by no more, as a fraction, are taken as equal."""


def describe(
    outcome: Outcome,
    targets: Sequence[Target],
    split: Split,
    options: Options,
    metric: Metric | None = None,
    doubts: Sequence[str] = (),
    *,
    model: str,
    started: datetime,
) -> Report:
    """Put everything about a run into one record.

    Args:
        outcome: what the run made and measured.
        targets: what it was to reach.
        split: which samples it used for what.
        options: its settings.
        metric: the user's metric.
        doubts: what is odd about the samples.
        model: name of the model's file, or of its graph.
        started: when it started, with the offset from UTC.
    """
    measured = outcome.measured
    return Report(
        settings=settings_of(targets, options),
        run=_run(outcome, model, started),
        samples=sample_counts(split),
        before=measured.before,
        after=measured.after,
        outputs=measured.outputs,
        targets=outcome.checks,
        metric=_metric(metric, measured),
        sections=dropped_rows(outcome.study, outcome.choice, outcome.cost),
        share=outcome.choice.share,
        groups=_groups(outcome, options),
        layers=_layers(outcome),
        frozen=frozen_rows(outcome.study.network, outcome.cost),
        notes=[*doubts, *_notes(outcome, split), *_coarse(targets, options, split)],
        refinement=outcome.refinement,
    )


def _run(outcome: Outcome, model: str, started: datetime) -> Run:
    return Run(
        command=None,
        model=model,
        digests={"before": outcome.plan.model, "after": digest(outcome.pruned)},
        started=started.isoformat(timespec="seconds"),
        seconds=(datetime.now(started.tzinfo) - started).total_seconds(),
        platform=f"{platform.system()} {platform.release()}, {platform.machine()}",
    )


def sample_counts(split: Split) -> dict[str, int]:
    """How many samples are for what."""
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


def settings_of(targets: Sequence[Target], options: Options) -> dict[str, object]:
    """What is asked for, and the versions that do it."""
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
        "mirror": options.mirror,
        "batch": options.batch,
        "threads": options.threads,
        "latency_batch": options.latency_batch,
        "latency_shape": options.latency_shape and dict(options.latency_shape),
        "seed": options.seed,
        "versions": {
            **{name: version(name) for name in ("onnxprune", "onnx", "numpy", "scipy")},
            "onnxruntime": VERSION,
            "python": platform.python_version(),
        },
    }


def dropped_rows(study: Study, choice: Choice, cost: CostModel) -> list[SectionReport]:
    """The sections that a choice drops."""
    return [
        SectionReport(
            section.name,
            section.branch,
            sorted(dropped_groups([section], study.groups)),
            _macs_share(cost, section.branch),
            choice.drops.get(section.name),
        )
        for section in dropped(study, choice.counts)
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
        producers=group.producers,
        macs_share=_macs_share(outcome.cost, group.producers),
        residual=None if law is None else law.residual,
    )


def _recovered(parts: Sequence[Solution]) -> ConsumerReport:
    """Mean errors over the parts of a consumer on tuning samples, and what was done."""
    return ConsumerReport(
        sliced=_mean([solution.sliced_error for solution in parts]),
        error=_mean([solution.tune_error for solution in parts]),
        recovery=", ".join(dict.fromkeys(solution.label for solution in parts)),
    )


def _mean(errors: Sequence[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known else None


def _macs_share(cost: CostModel, nodes: Sequence[str]) -> float:
    """The share of these nodes in the MACs of the network before."""
    node_macs = cost.node_macs
    total = sum(node_macs.values()) or 1.0
    return sum(node_macs.get(node, 0.0) for node in nodes) / total


def _layers(outcome: Outcome) -> list[LayerReport]:
    study, counts = outcome.study, outcome.choice.counts
    network, alive = study.network, study.survivors(study.keeps(counts))
    gone = {node for section in dropped(study, counts) for node in section.branch}
    rows = []
    for name, layer in network.producers.items():
        channels = network.channels(layer.y, layer.y_axis)
        kept = int(((channels == FROZEN) | alive[channels]).sum())
        share = _macs_share(outcome.cost, [name])
        rows.append(LayerReport(name, channels.size, 0 if name in gone else kept, share))
    return rows


def frozen_rows(network: Network, cost: CostModel) -> list[FrozenReport]:
    """The producers with frozen channels, those with most MACs first."""
    rows = [
        FrozenReport(f.producer, f.frozen, f.size, f.reason, _macs_share(cost, [f.producer]))
        for f in network.frozen
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
    return notes + left_notes(outcome.study, outcome.original)


def left_notes(study: Study, original: onnx.ModelProto) -> list[str]:
    """What the samples are too few for, and what is left as it is."""
    notes = []
    thin = study.thin_layers()
    if thin:
        notes.append(
            f"few calibration rows for {len(thin)} consumer{'s' * (len(thin) > 1)} "
            f"({', '.join(thin[:3])}"
            f"{', ...' if len(thin) > 3 else ''}); more samples would recover them better"
        )
    operators = {node.op_type for node in original.graph.node}
    subgraphs = sorted(operators & {"If", "Loop", "Scan"})
    if subgraphs:
        notes.append(f"what {', '.join(subgraphs)} compute inside was left as it is")
    return notes
