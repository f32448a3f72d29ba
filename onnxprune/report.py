"""One record of a run; the table and the JSON are views of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.comparison import OutputDistance
from onnxprune.criteria.spectra import Spectrum
from onnxprune.latency import Latency
from onnxprune.refinement import Refinement
from onnxprune.replacing import explained, replacing
from onnxprune.verdict import Check, table


@dataclass(frozen=True)
class Footprint:
    """What one model costs.

    Attributes:
        params: floating-point parameters.
        macs: multiply-accumulates of convolutions, Gemm, MatMul and recurrent layers for one
            sample.
        bytes: size of the file.
        latency: measured, interleaved with the other model; None where it was not.
    """

    params: int
    macs: int
    bytes: int
    latency: Latency | None


@dataclass(frozen=True)
class Price:
    """What keeping so many of a group's channels costs, this group alone being cut.

    Attributes:
        count: channels kept.
        error: relative error of the consumers, recovered; summed over them.
        divergence: predicted divergence of the outputs, of softened scores (see ``comparison``);
            None unless sensitivity was measured.
    """

    count: int
    error: float
    divergence: float | None


@dataclass(frozen=True)
class GroupReport:
    """What happened to one channel group.

    Attributes:
        name: the group.
        size: channels before.
        keep: indices of the channels that survive.
        curve: the prices of all counts that were allowed, ascending.
        consumers: consumer -> (relative error on samples not fitted on, how it was recovered).
        spectrum: how the variance of its channels is spread.
        residual: how far the trials lie from the law that the divergences of the curve follow: root
            mean square in natural logarithms; None unless sensitivity was measured.
    """

    name: str
    size: int
    keep: Sequence[int]
    curve: Sequence[Price] = field(repr=False)
    consumers: dict[str, tuple[float | None, str]]
    spectrum: Spectrum = field(repr=False)
    residual: float | None = None

    @property
    def price(self) -> Price:
        """The price of the count that was chosen."""
        return next(price for price in self.curve if price.count == len(self.keep))


@dataclass(frozen=True)
class SectionReport:
    """A residual section that was dropped.

    Attributes:
        name: the section.
        layers: the nodes that went with it.
        groups: the channel groups inside it, which are not among the report's groups.
        macs_share: its share of the network's MACs.
        divergence: divergence of the outputs when it alone is dropped.
    """

    name: str
    layers: Sequence[str]
    groups: Sequence[str]
    macs_share: float
    divergence: float | None


@dataclass(frozen=True)
class FrozenReport:
    """A producer with channels that could not be cut.

    Attributes:
        name: the node.
        frozen: how many channels.
        size: of how many.
        reason: why.
        macs_share: the node's share of the network's MACs.
    """

    name: str
    frozen: int
    size: int
    reason: str
    macs_share: float


@dataclass(frozen=True)
class MetricReport:
    """What the user's metric says.

    Attributes:
        name: what was measured.
        before: its value for the original.
        after: its value for the pruned model.
    """

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Report:
    """Everything about a run.

    Attributes:
        settings: what was asked for, and the versions that did it.
        samples: samples used to fit, to tune, to choose refined weights, and to report.
        before: the original model.
        after: the pruned model.
        outputs: distance of every output from the original's on the held-out samples.
        targets: every target beside what was measured on the pruned model.
        metric: the user's metric; None without one.
        share: the largest share of what its channels carry that any group is left without, where
            the allocation goes by it: the cut-off p that was reached, or 1 - tau.
        sections: the residual sections that were dropped.
        groups: every group that could be cut and did not go with one of them.
        frozen: producers with frozen channels, those with most MACs first.
        notes: things the user should know, with advice.
        refinement: what was done to the weights after pruning; None without.
    """

    settings: dict[str, Any]
    samples: dict[str, int]
    before: Footprint
    after: Footprint
    outputs: Sequence[OutputDistance]
    targets: Sequence[Check]
    metric: MetricReport | None
    share: float | None
    sections: Sequence[SectionReport]
    groups: Sequence[GroupReport]
    frozen: Sequence[FrozenReport]
    notes: Sequence[str]
    refinement: Refinement | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {
            "settings": self.settings,
            "samples": self.samples,
            "before": _footprint(self.before),
            "after": _footprint(self.after),
            "outputs": [
                {
                    "name": o.name,
                    "samples": o.samples,
                    "relative_error": o.relative_error,
                    "cosine": o.cosine,
                    "top1_agreement": o.agreement,
                    "divergence": o.divergence,
                }
                for o in self.outputs
            ],
            "targets": [
                {
                    "target": str(c.target),
                    "limit": c.limit,
                    "reached": c.reached,
                    "original": c.full if c.target.is_cost else None,
                    "holds": c.holds,
                }
                for c in self.targets
            ],
            "metric": None if self.metric is None else vars(self.metric),
            "share": self.share,
            "sections": [
                vars(s) | {"layers": list(s.layers), "groups": list(s.groups)}
                for s in self.sections
            ],
            "groups": [
                {
                    "name": g.name,
                    "size": g.size,
                    "kept": len(g.keep),
                    "keep": list(g.keep),
                    "error": g.price.error,
                    "divergence": g.price.divergence,
                    "curve": [vars(price) for price in g.curve],
                    "residual": g.residual,
                    "spectrum": {name: list(v) for name, v in vars(g.spectrum).items()},
                    "consumers": {
                        name: {"error": error, "recovery": label}
                        for name, (error, label) in g.consumers.items()
                    },
                }
                for g in self.groups
            ],
            "frozen": [vars(f) for f in self.frozen],
            "refinement": None if self.refinement is None else self.refinement.to_dict(),
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> None:
        """Write the record as JSON.

        Raises:
            OnnxPruneError: it cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        with replacing(Path(path)) as temporary, explained(Path(path)):
            temporary.write_text(text + "\n", encoding="utf-8")

    def table(self) -> str:
        """The record for a terminal: before and after, output error, what stayed whole."""
        asked = [*table(self.targets), ""] if self.targets else []
        return "\n".join([*_costs(self), "", *asked, *_outputs(self), "", *_channels(self)])


def _footprint(footprint: Footprint) -> dict[str, Any]:
    latency = None if footprint.latency is None else vars(footprint.latency)
    return {
        "params": footprint.params,
        "macs": footprint.macs,
        "bytes": footprint.bytes,
        "latency_ms": latency,
    }


def _costs(report: Report) -> list[str]:
    before, after = report.before, report.after
    rows = [
        ("params", f"{before.params:,}", f"{after.params:,}", _ratio(after.params, before.params)),
        ("MACs", f"{before.macs:,}", f"{after.macs:,}", _ratio(after.macs, before.macs)),
        (
            "file size",
            f"{before.bytes / 1e3:,.0f} kB",
            f"{after.bytes / 1e3:,.0f} kB",
            _ratio(after.bytes, before.bytes),
        ),
    ]
    if before.latency and after.latency:
        old, new = before.latency, after.latency
        rows.append(
            (
                "latency, median",
                f"{old.median:.3f} ms",
                f"{new.median:.3f} ms",
                _ratio(new.median, old.median),
            )
        )
        rows.append(
            ("latency, p90", f"{old.p90:.3f} ms", f"{new.p90:.3f} ms", _ratio(new.p90, old.p90))
        )
    header = f"{'':<16}{'before':>16}{'after':>16}{'kept':>9}"
    return [header, *(f"{n:<16}{b:>16}{a:>16}{r:>9}" for n, b, a, r in rows)]


def _ratio(after: float, before: float) -> str:
    return f"{after / before:.1%}" if before else "-"


def _outputs(report: Report) -> list[str]:
    lines = []
    for output in report.outputs:
        agreement = output.agreement
        same = "" if agreement is None else f", same top class {agreement:.1%}"
        lines.append(
            f"output {output.name}: relative error {output.relative_error:.4f}, "
            f"cosine {output.cosine:.5f}{same} ({output.samples} held-out samples)"
        )
    if report.metric is not None:
        name, before, after = vars(report.metric).values()
        lines.append(f"{name}: {before:.4f} before, {after:.4f} after")
    if report.refinement is not None:
        lines.append(str(report.refinement))
    return lines


def _channels(report: Report) -> list[str]:
    kept = sum(len(group.keep) for group in report.groups)
    total = sum(group.size for group in report.groups)
    lines = [f"channels kept: {kept} of {total} in {len(report.groups)} groups"]
    lines += ["dropped:"] * bool(report.sections) + [
        f"  {s.name}: {len(s.layers)} nodes ({s.macs_share:.1%} of MACs)" for s in report.sections
    ]
    if report.frozen:
        lines.append("not cut:")
        for f in report.frozen:
            extent = f": {f.frozen} of {f.size} channels" if f.size else ""
            lines.append(f"  {f.name}{extent} ({f.macs_share:.1%} of MACs): {f.reason}")
    lines += [f"note: {note}" for note in report.notes]
    return lines
