"""From targets to what a run would make first: chosen as there, tried, and not made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.description import dropped_rows, frozen_rows, left_notes, sample_counts, settings_of
from onnxprune.finishing import plan_of
from onnxprune.forecast import Forecast, GroupForecast, MetricForecast
from onnxprune.groundwork import Groundwork
from onnxprune.metadata import stamp
from onnxprune.metric import Metric
from onnxprune.model import file_bytes
from onnxprune.network import ChannelGroup
from onnxprune.provenance import record_of, weighed
from onnxprune.pursuit import Foreseen, Pursuit
from onnxprune.recovery import Solution
from onnxprune.report_parts import Footprint
from onnxprune.rewrite import apply
from onnxprune.section_choice import dropped, with_constants
from onnxprune.sections import dropped_groups
from onnxprune.survey import Share, shares
from onnxprune.target import Target
from onnxprune.trials import Trials, Tried
from onnxprune.verdict import Check


def foresee(ground: Groundwork, targets: Sequence[Target], asked: Sequence[Target]) -> Forecast:
    """What a run would cut first, without refitting, measuring or timing a model.

    One trial of the whole choice predicts the damage. Its weights have the shapes that those of
    the run would have, so that the model they make is counted, and let go.

    Args:
        ground: the model and its samples.
        targets: what a run would pursue.
        asked: what the user has asked for.

    Raises:
        TargetError: the targets cannot be reached.
    """
    foreseen = Pursuit(ground, targets).first()
    known, choice = ground.study, foreseen.choice
    (tried,) = ground.chooser.finalists.tried([choice.counts], "trying the plan")
    plan = plan_of(ground.original, known, choice.counts)
    weights = with_constants(tried.weights, known, dropped(known, choice.counts))
    model = apply(ground.original, plan, weights)
    after = ground.judge.footprint(model)
    times = [pair for target, pair in foreseen.costs.items() if target.kind == "latency"]
    cuts = bool(plan.edits)
    found = Forecast(
        settings=settings_of(asked, ground.options),
        samples=sample_counts(ground.parts),
        before=ground.judge.before,
        after=after,
        milliseconds=(times[0][1], times[0][0]) if times else None,
        outputs=tried.distances,
        targets=[_check(ground, foreseen, target, after) for target in targets],
        metric=_metric(ground.judge.metric, ground.chooser.finalists, tried),
        sections=dropped_rows(known, choice, ground.cost),
        groups=_groups(ground, foreseen, tried),
        frozen=frozen_rows(known.network, ground.cost),
        notes=[ground.parts.note] * bool(ground.parts.note)
        + ["nothing would be cut: the model meets the targets as it is"] * (not cuts)
        + left_notes(known, ground.original)
        + ground.memory.notes,
        plan=plan,
    )
    stamp(model, record_of(found, plan, len(weights.arrays), ground.file_sha256))
    return weighed(found, file_bytes(model))


def _check(ground: Groundwork, foreseen: Foreseen, target: Target, after: Footprint) -> Check:
    """A target beside what is counted, or else predicted."""
    if not target.is_cost:
        return Check(target, target.value, foreseen.damages[target], 0.0)
    before = ground.judge.before
    counted = {
        "macs": (after.macs, before.macs),
        "params": (after.params, before.params),
        "size": (after.bytes, before.bytes),
    }
    reached, full = counted.get(target.kind, foreseen.costs[target])
    return Check(target, target.limit(full), reached, full)


def _metric(metric: Metric | None, trials: Trials, tried: Tried) -> MetricForecast | None:
    if metric is None:
        return None
    before, after = (
        metric.tried(lambda feed, model=model: trials.predict(feed, model))  # type: ignore[misc]
        for model in (None, tried)
    )
    return MetricForecast(metric.name, before, after)


def _groups(ground: Groundwork, foreseen: Foreseen, tried: Tried) -> list[GroupForecast]:
    known = ground.study
    gone = dropped_groups(dropped(known, foreseen.choice.counts), known.groups)
    share = shares(known.network, ground.cost, known.sizes)
    return [
        _group(ground, foreseen, tried, group, share)
        for group in known.groups
        if group.name not in gone
    ]


def _group(
    ground: Groundwork, foreseen: Foreseen, tried: Tried, group: ChannelGroup, share: Share
) -> GroupForecast:
    known, choice = ground.study, foreseen.choice
    count = choice.counts.get(group.name, group.size)
    error = float(known.rankings[group.name].error[count])
    law = choice.laws.get(group.name)
    readers = (*group.consumers, *group.contractions)
    solutions = tried.prior.solutions
    keep = known.keeps(choice.counts).get(group.name, np.arange(group.size))
    macs, _ = share((*group.producers, *readers))
    return GroupForecast(
        name=group.name,
        size=group.size,
        keep=keep.tolist(),
        producers=group.producers,
        consumers=readers,
        error=error,
        consumer_errors={name: _error(solutions[name]) for name in readers if name in solutions},
        divergence=None if law is None else float(law(np.array(error))),
        macs_share=macs,
    )


def _error(parts: Sequence[Solution]) -> float | None:
    """Mean over the parts of a consumer."""
    errors = [solution.tune_error for solution in parts if solution.tune_error is not None]
    return sum(errors) / len(errors) if errors else None
