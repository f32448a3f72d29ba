"""The parts of a saved report, read back from JSON values and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.criteria.spectra import Spectrum
from onnxprune.errors import ReportError
from onnxprune.latency import Latency
from onnxprune.refinement import Refinement
from onnxprune.report_parts import (
    ConsumerReport,
    Footprint,
    FrozenReport,
    GroupReport,
    LayerReport,
    MetricReport,
    Price,
    Run,
    SectionReport,
)
from onnxprune.saved_values import amount, amounts, maybe, number, texts, whole
from onnxprune.target import Target
from onnxprune.verdict import Check


@dataclass(frozen=True)
class SavedOutput:
    """How far one output of the pruned model is from the original's; see ``comparison``.

    Attributes:
        name: the output.
        samples: held-out samples it was compared on.
        relative_error: norm of the difference over that of the original's.
        cosine: of the angle between both.
        agreement: share of samples with the same top class; None where there are no scores.
        divergence: Kullback-Leibler divergence in nats for scores, else the squared error.
    """

    name: str
    samples: int
    relative_error: float
    cosine: float
    agreement: float | None
    divergence: float


def read_run(given: Mapping[str, Any]) -> Run:
    """The command, the models, date and machine."""
    command = given["command"]
    return Run(
        command=None if command is None else str(command),
        model=str(given["model"]),
        digests={when: str(given["digests"][when]) for when in ("before", "after")},
        started=str(given["started"]),
        seconds=amount(given["seconds"]),
        platform=str(given["platform"]),
    )


def read_footprint(given: Mapping[str, Any]) -> Footprint:
    """What a model costs."""
    latency = given["latency_ms"]
    return Footprint(
        params=whole(given["params"]),
        macs=whole(given["macs"]),
        bytes=whole(given["bytes"]),
        latency=None if latency is None else _latency(latency),
    )


def _latency(given: Mapping[str, Any]) -> Latency:
    median, p90, p99 = (amount(given[name]) for name in ("median", "p90", "p99"))
    return Latency(median, p90, p99, whole(given["runs"]), amounts(given["durations"]))


def read_output(given: Mapping[str, Any]) -> SavedOutput:
    """How far an output moved."""
    return SavedOutput(
        name=str(given["name"]),
        samples=whole(given["samples"]),
        relative_error=amount(given["relative_error"]),
        cosine=number(given["cosine"]),
        agreement=maybe(given["top1_agreement"]),
        divergence=number(given["divergence"]),
    )


def read_check(given: Mapping[str, Any]) -> Check:
    """A target and what was reached."""
    original = maybe(given["original"])
    target = Target.parse(str(given["target"]))
    return Check(target, number(given["limit"]), number(given["reached"]), original or 0.0)


def read_metric(given: Mapping[str, Any]) -> MetricReport:
    """What the user's metric says."""
    return MetricReport(str(given["name"]), number(given["before"]), number(given["after"]))


def read_group(given: Mapping[str, Any]) -> GroupReport:
    """A channel group, whose curve prices the count that was chosen."""
    name, size = str(given["name"]), int(given["size"])
    keep = [whole(unit) for unit in given["keep"]]
    if "spectrum" not in given:
        raise ReportError(
            f"group '{name}' has no spectrum: the report is of an older version; run again "
            "with --report"
        )
    spectrum = Spectrum(**{part: amounts(v) for part, v in dict(given["spectrum"]).items()})
    curve = [Price(p["count"], number(p["error"]), maybe(p["divergence"])) for p in given["curve"]]
    counts = [price.count for price in curve]
    if not size == len(spectrum.pivots) == len(spectrum.components):
        raise ValueError(f"group '{name}' of {size} channels has a spectrum of other lengths")
    if sorted(set(counts)) != counts or len(keep) not in counts or not 0 < counts[-1] <= size:
        raise ValueError(f"group '{name}': the curve does not price the {len(keep)} channels kept")
    return GroupReport(
        name,
        size,
        keep,
        curve,
        {consumer: _consumer(found) for consumer, found in given["consumers"].items()},
        spectrum,
        texts(given["producers"]),
        amount(given["macs_share"]),
        maybe(given["residual"]),
    )


def _consumer(given: Mapping[str, Any]) -> ConsumerReport:
    sliced, error = maybe(given["sliced"]), maybe(given["error"])
    return ConsumerReport(sliced, error, str(given["recovery"]))


def read_layer(given: Mapping[str, Any]) -> LayerReport:
    """The width of a layer."""
    size, kept = whole(given["size"]), whole(given["kept"])
    return LayerReport(str(given["name"]), size, kept, amount(given["macs_share"]))


def read_section(given: Mapping[str, Any]) -> SectionReport:
    """A section that was dropped."""
    return SectionReport(
        str(given["name"]),
        texts(given["layers"]),
        texts(given["groups"]),
        amount(given["macs_share"]),
        maybe(given["divergence"]),
    )


def read_frozen(given: Mapping[str, Any]) -> FrozenReport:
    """A layer with channels that could not be cut."""
    return FrozenReport(
        str(given["name"]),
        whole(given["frozen"]),
        whole(given["size"]),
        str(given["reason"]),
        amount(given["macs_share"]),
    )


def read_refinement(given: Mapping[str, Any]) -> Refinement:
    """What training did; a trial without a finite divergence had gone astray."""
    trials = {
        number(trial["rate"]): math.inf if trial["divergence"] is None else trial["divergence"]
        for trial in given["trials"]
    }
    return Refinement(
        before=number(given["before"]),
        after=number(given["after"]),
        seconds=amount(given["seconds"]),
        steps=whole(given["steps"]),
        rate=number(given["rate"]),
        trials={rate: float(divergence) for rate, divergence in trials.items()},
    )
