"""One record of what a run would cut, and what is predicted of the result; the table shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxprune.comparison import OutputDistance
from onnxprune.inspection import few
from onnxprune.plan import Plan
from onnxprune.report_parts import Footprint, FrozenReport, SectionReport
from onnxprune.tables import columns
from onnxprune.verdict import Check


@dataclass(frozen=True)
class GroupForecast:
    """What would happen to one channel group.

    Attributes:
        name: the group.
        size: channels before.
        keep: indices of the channels that would survive.
        producers: the layers that make the channels.
        consumers: the layers that read them, and the products of activations that sum over them.
        error: relative error of the consumers, recovered one by one; summed over them.
        consumer_errors: consumer -> its own part, on samples not fitted on; those that lose inputs.
        divergence: predicted divergence of the outputs if this group alone were cut; None unless
            sensitivity was measured.
        macs_share: share of the network's MACs that these layers take. Neighbouring groups share
            layers, so the shares of all groups exceed the whole.
    """

    name: str
    size: int
    keep: Sequence[int]
    producers: Sequence[str]
    consumers: Sequence[str]
    error: float
    consumer_errors: dict[str, float | None]
    divergence: float | None
    macs_share: float


@dataclass(frozen=True)
class MetricForecast:
    """What the user's metric says of a trial, on samples to tune on.

    Attributes:
        name: what is measured.
        before: its value for the original.
        predicted: its value for the trial.
    """

    name: str
    before: float
    predicted: float


@dataclass(frozen=True)
class Forecast:
    """What a run would make first.

    Attributes:
        settings: what is asked for, and the versions that do it.
        samples: samples to fit, to tune and to report.
        before: the original model.
        after: the pruned model; parameters, MACs and bytes are counted on it, as it would be.
        milliseconds: predicted time of a run before and after; None without a target on it.
        outputs: distance of every output from the original's in a trial, on ``tried_on`` samples.
        targets: every target beside what is counted or predicted.
        metric: the user's metric; None without one.
        sections: the residual sections that would be dropped.
        groups: every group that could be cut and does not go with one of them.
        frozen: producers with frozen channels, those with most MACs first.
        notes: things the user should know, with advice.
        plan: what would be cut.
    """

    settings: dict[str, Any]
    samples: dict[str, int]
    before: Footprint
    after: Footprint
    milliseconds: tuple[float, float] | None
    outputs: Sequence[OutputDistance]
    targets: Sequence[Check]
    metric: MetricForecast | None
    sections: Sequence[SectionReport]
    groups: Sequence[GroupForecast]
    frozen: Sequence[FrozenReport]
    notes: Sequence[str]
    plan: Plan = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values; what is not counted is under ``predicted``."""
        times = self.milliseconds
        return {
            "settings": self.settings,
            "samples": self.samples,
            "before": _footprint(self.before),
            "after": _footprint(self.after),
            "predicted": {
                "latency_ms": None if times is None else {"before": times[0], "after": times[1]},
                "outputs": [output.to_dict() for output in self.outputs],
                "metric": None if self.metric is None else asdict(self.metric),
            },
            "targets": [
                {
                    "target": str(c.target),
                    "limit": c.limit,
                    "foreseen": c.reached,
                    "predicted": not _is_counted(c),
                    "holds": c.holds,
                }
                for c in self.targets
            ],
            "sections": [asdict(section) for section in self.sections],
            "groups": [asdict(g) | {"kept": len(g.keep)} for g in self.groups],
            "frozen": [asdict(row) for row in self.frozen],
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """The record for a terminal."""
        parts = [
            _costs(self),
            _targets(self),
            _outputs(self),
            _groups(self),
            _left(self),
            [f"note: {note}" for note in self.notes],
        ]
        return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _footprint(footprint: Footprint) -> dict[str, int]:
    return {"params": footprint.params, "macs": footprint.macs, "bytes": footprint.bytes}


def _is_counted(check: Check) -> bool:
    return check.target.kind in ("macs", "params", "size", "ratio")


def _costs(record: Forecast) -> list[str]:
    before, after, times = record.before, record.after, record.milliseconds
    amounts = [
        ("params", f"{before.params:,}", f"{after.params:,}", after.params, before.params),
        ("MACs", f"{before.macs:,}", f"{after.macs:,}", after.macs, before.macs),
        (
            "file size",
            f"{before.bytes / 1e3:,.0f} kB",
            f"{after.bytes / 1e3:,.0f} kB",
            after.bytes,
            before.bytes,
        ),
    ]
    rows = [(name, b, a, f"{new / old:.1%}" if old else "-") for name, b, a, new, old in amounts]
    if times is not None:
        old, new = times
        kept = f"{new / old:.1%}" if old else "-"
        rows.append(("latency, predicted", f"{old:.3f} ms", f"{new:.3f} ms", kept))
    header = f"{'':<20}{'before':>16}{'after':>16}{'kept':>9}"
    return [header, *(f"{n:<20}{b:>16}{a:>16}{kept:>9}" for n, b, a, kept in rows)]


def _targets(record: Forecast) -> list[str]:
    if not record.targets:
        return []
    rows = [
        (str(c.target), c.asked_text, c.reached_text, "counted" if _is_counted(c) else "predicted")
        for c in record.targets
    ]
    return columns([("target", "asked", "foreseen", ""), *rows])


def _outputs(record: Forecast) -> list[str]:
    lines = []
    for output in record.outputs:
        agreement = output.agreement
        same = "" if agreement is None else f", same top class {agreement:.1%}"
        lines.append(
            f"output {output.name}: predicted relative error {output.relative_error:.4f}, "
            f"cosine {output.cosine:.5f}{same} (a trial, judged by {output.samples} samples)"
        )
    if record.metric is not None:
        name, before, predicted = vars(record.metric).values()
        lines.append(f"{name}: {before:.4f} before, {predicted:.4f} predicted")
    return lines


def _groups(record: Forecast) -> list[str]:
    rows = [
        (
            f"{g.size} -> {len(g.keep)}",
            f"{g.macs_share:.1%}",
            f"{g.error:.2g}",
            "-" if g.divergence is None else f"{g.divergence:.2g}",
            g.name,
            few(g.producers),
            few(g.consumers),
        )
        for g in record.groups
    ]
    header = ("channels", "MACs", "error", "divergence", "group", "made by", "read by")
    kept = sum(len(group.keep) for group in record.groups)
    total = sum(group.size for group in record.groups)
    counted = f"channels that would be kept: {kept} of {total} in {len(rows)} groups"
    return [*columns([header, *rows], numbers=4), counted]


def _left(record: Forecast) -> list[str]:
    lines = ["would be dropped:"] * bool(record.sections)
    lines += [
        f"  {s.name}: {len(s.layers)} nodes ({s.macs_share:.1%} of MACs)" for s in record.sections
    ]
    lines += ["would not be cut:"] * bool(record.frozen)
    for f in record.frozen:
        extent = f": {f.frozen} of {f.size} channels" if f.size else ""
        lines.append(f"  {f.name}{extent} ({f.macs_share:.1%} of MACs): {f.reason}")
    return lines
