"""What a pruned model costs and does, measured on the model itself and not predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx

from onnxprune.arrays import Feed
from onnxprune.batches import Batches
from onnxprune.calibration import Calibration, Split
from onnxprune.comparison import OutputDistance
from onnxprune.cost import counted_macs, parameter_count
from onnxprune.errors import MetricError, TargetError, ValidationError
from onnxprune.executor import Executor
from onnxprune.latency import interleaved_latency
from onnxprune.metadata import RESERVED
from onnxprune.metric import Metric, metric_of
from onnxprune.model import file_bytes
from onnxprune.options import Options
from onnxprune.report_parts import Footprint
from onnxprune.row_mask import RowMask
from onnxprune.runtime import Session
from onnxprune.target import Target
from onnxprune.validation import compare
from onnxprune.verdict import Check


@dataclass(frozen=True)
class Measured:
    """One pruned model beside the original.

    Attributes:
        before: what the original costs.
        after: what the pruned model costs.
        outputs: how far its outputs are from the original's on held-out samples.
        metric: the user's metric of both; None without one.
    """

    before: Footprint
    after: Footprint
    outputs: Sequence[OutputDistance]
    metric: tuple[float, float] | None


@dataclass(frozen=True)
class Judge:
    """Measures pruned models against one original, all in the same way.

    Attributes:
        original: the model as it was read.
        macs: its multiply-accumulates for one sample.
        held_out: samples that nothing was fitted on.
        sample: a batch of one sample (or of the batch size the model is fixed to).
        timed: the feed that latency is measured with.
        options: settings.
        executor: where batches run.
        metric: the user's metric.
        mask: says which positions of outputs count; None for all.
    """

    original: onnx.ModelProto
    macs: int
    held_out: Batches
    sample: Feed
    timed: Feed
    options: Options
    executor: Executor
    metric: Metric | None
    mask: RowMask | None = None

    @cached_property
    def before(self) -> Footprint:
        """What the original costs, without its latency."""
        return Footprint(parameter_count(self.original), self.macs, file_bytes(self.original), None)

    @cached_property
    def metric_before(self) -> float | None:
        """The user's metric of the original."""
        return None if self.metric is None else self._judged(self.metric, self.original)

    def measure(self, pruned: onnx.ModelProto, *, latency: bool) -> Measured:
        """Count, weigh, run and, if asked, time a pruned model.

        Raises:
            ValidationError: it does not run, or its outputs are not numbers.
        """
        outputs = compare(
            self.original,
            pruned,
            self.held_out,
            self.executor,
            self.options.provider,
            self.mask,
        )
        for output in outputs:
            if not output.relative_error < float("inf"):
                raise ValidationError(
                    f"output '{output.name}' of the pruned model, or of the original, is infinite "
                    "or not a number on calibration samples; check that they are what the model "
                    "expects"
                )
        after = self.footprint(pruned)
        metric = None
        if self.metric is not None and self.metric_before is not None:
            metric = (self.metric_before, self._judged(self.metric, pruned))
        measured = Measured(self.before, after, outputs, metric)
        return self.timed_too(measured, pruned) if latency else measured

    def footprint(self, pruned: onnx.ModelProto) -> Footprint:
        """What a pruned model costs, without its latency."""
        return Footprint(
            parameter_count(pruned), self._counted_macs(pruned), file_bytes(pruned), None
        )

    def timed_too(self, measured: Measured, pruned: onnx.ModelProto) -> Measured:
        """The same with latency, of the original and the pruned model in turns."""
        if measured.after.latency is not None:
            return measured
        times = interleaved_latency(
            (self.original, pruned),
            self.timed,
            threads=self.options.threads,
            provider=self.options.provider,
            progress=self.options.progress,
        )
        before, after = (
            replace(footprint, latency=latency)
            for footprint, latency in zip((measured.before, measured.after), times, strict=True)
        )
        return replace(measured, before=before, after=after)

    def checks(
        self, targets: Sequence[Target], measured: Measured, channels: int, kept: int
    ) -> list[Check]:
        """Every target beside what was measured.

        Args:
            targets: the targets.
            measured: the pruned model; with its latency if a target is on that.
            channels: channels of the groups that may be cut.
            kept: how many of them were kept.
        """
        return [_check(target, measured, (float(channels), float(kept))) for target in targets]

    def _counted_macs(self, pruned: onnx.ModelProto) -> int:
        shapes = {name: array.shape for name, array in self.sample.items()}
        return round(counted_macs(pruned, shapes) / (self.held_out.samples.batch_extent or 1))

    def _judged(self, metric: Metric, model: onnx.ModelProto) -> float:
        session = Session(model, provider=self.options.provider, arena=False)
        return metric.final(session.run)


def _check(target: Target, measured: Measured, channels: tuple[float, float]) -> Check:
    before, after = measured.before, measured.after
    pairs: dict[str, tuple[float, float]] = {
        "macs": (before.macs, after.macs),
        "params": (before.params, after.params),
        "size": (before.bytes, after.bytes + RESERVED),  # the record is written later
        "ratio": channels,
        "error": (0.0, max(output.relative_error for output in measured.outputs)),
    }
    if before.latency is not None and after.latency is not None:
        pairs["latency"] = (before.latency.median, after.latency.median)
    if measured.metric is not None:
        pairs["drop"] = (0.0, measured.metric[0] - measured.metric[1])
    full, reached = pairs[target.kind]
    return Check(target, target.limit(full), reached, full)


def require_sense(targets: Sequence[Target], judge: Judge) -> None:
    """Refuse a bound on the metric that no model could miss, or that nothing measures.

    Raises:
        TargetError: the bound says nothing.
        MetricError: there is no metric.
    """
    for target in (t for t in targets if t.kind == "drop"):
        if judge.metric_before is None:
            raise MetricError("a target on the drop needs --eval or --labels to measure it")
        if target.value >= 1 and 0 <= judge.metric_before <= 1:
            raise TargetError(
                f"{target} allows any drop of a metric of {judge.metric_before:.4g}; in per cent "
                f"it is written drop={target.value:g}%"
            )


def judge_of(
    original: onnx.ModelProto,
    macs: int,
    samples: Calibration,
    split: Split,
    options: Options,
    executor: Executor,
    mask: RowMask | None = None,
) -> Judge:
    """The judge of pruned models.

    Raises:
        TargetError: latency is asked for with batches that the model does not take.
        MetricError: the metric cannot be loaded, or the labels do not fit the samples.
    """
    held_out = Batches(samples, split.held_out, options.batch)
    sample = next(iter(replace(held_out, size=1)))
    timed = _timed(sample, samples, options)
    metric = metric_of(options.evaluate, options.labels, samples, split, options.batch)
    return Judge(original, macs, held_out, sample, timed, options, executor, metric, mask)


def _timed(sample: Feed, samples: Calibration, options: Options) -> Feed:
    """The feed that latency is measured with: a sample, repeated to the batch or shape asked for.

    Raises:
        TargetError: the model does not take it.
    """
    fixed, wanted = samples.batch_extent, options.latency_batch
    if fixed is not None and wanted not in (None, fixed):
        raise TargetError(
            f"latency cannot be measured with batches of {wanted}: the model takes batches of "
            f"exactly {fixed}; leave --latency-batch away"
        )
    repeats = 1 if fixed is not None else wanted or 1
    batch = {name: np.repeat(array, repeats, axis=0) for name, array in sample.items()}
    specs = {spec.name: spec for spec in samples.inputs}
    for name, shape in (options.latency_shape or {}).items():
        if name not in specs:
            raise TargetError(
                f"latency cannot be measured for an input '{name}': the model's are "
                f"{', '.join(specs)}"
            )
        if not specs[name].takes(shape):
            raise TargetError(
                f"latency cannot be measured with {name}:{'x'.join(map(str, shape))}: the model "
                f"takes {specs[name]}"
            )
        if wanted is not None and shape[0] != wanted:
            raise TargetError(
                f"latency is asked for with a batch of {wanted} and one of {shape[0]} in the shape "
                f"of '{name}'; give one of them"
            )
        for axis, extent in enumerate(shape):
            places = np.arange(extent) % batch[name].shape[axis]
            batch[name] = np.take(batch[name], places, axis=axis)
    return batch
