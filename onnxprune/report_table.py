"""The record of a run for a terminal, part by part."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.comparison import OutputDistance
from onnxprune.refinement import Refinement
from onnxprune.report_parts import (
    Footprint,
    FrozenReport,
    GroupReport,
    MetricReport,
    SectionReport,
)


def cost_lines(before: Footprint, after: Footprint) -> list[str]:
    """What the model costs before and after, and the part that is left."""
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


def output_lines(
    outputs: Sequence[OutputDistance],
    metric: MetricReport | None,
    refinement: Refinement | None,
) -> list[str]:
    """How far the outputs moved, what the user's metric says, what training did."""
    lines = []
    for output in outputs:
        agreement = output.agreement
        same = "" if agreement is None else f", same top class {agreement:.1%}"
        lines.append(
            f"output {output.name}: relative error {output.relative_error:.4f}, "
            f"cosine {output.cosine:.5f}{same} ({output.samples} held-out samples)"
        )
    if metric is not None:
        name, before, after = vars(metric).values()
        lines.append(f"{name}: {before:.4f} before, {after:.4f} after")
    if refinement is not None:
        lines.append(str(refinement))
    return lines


def channel_lines(
    groups: Sequence[GroupReport],
    sections: Sequence[SectionReport],
    frozen: Sequence[FrozenReport],
) -> list[str]:
    """How many channels are left, what was dropped, and what could not be cut."""
    kept = sum(len(group.keep) for group in groups)
    total = sum(group.size for group in groups)
    lines = [f"channels kept: {kept} of {total} in {len(groups)} groups"]
    lines += ["dropped:"] * bool(sections) + [
        f"  {s.name}: {len(s.layers)} nodes ({s.macs_share:.1%} of MACs)" for s in sections
    ]
    if frozen:
        lines.append("not cut:")
        for f in frozen:
            extent = f": {f.frozen} of {f.size} channels" if f.size else ""
            lines.append(f"  {f.name}{extent} ({f.macs_share:.1%} of MACs): {f.reason}")
    return lines
