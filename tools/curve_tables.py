"""Markdown tables of what ``bench_curves.py`` measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from curve_rows import OWN, Job, Row
from trained import NETWORKS

MAIN = "onnxprune"
OFF = 0.02
"""MACs that differ from the fraction by more are named in the cell."""

NONE = "-"


def tables(rows: Sequence[Row]) -> str:
    """All tables there are rows for."""
    own = [row for row in rows if row.job.reference == row.job.network]
    networks = [name for name in NETWORKS if any(row.job.network == name for row in own)]
    plain = [row for row in own if row.job.calibration == OWN]
    parts = [curve(name, [row for row in plain if row.job.network == name]) for name in networks]
    parts += [by_size(plain), by_kind(own), rivals([row for row in rows if row not in own])]
    return "\n\n".join(part for part in parts if part)


def curve(network: str, rows: Sequence[Row]) -> str:
    """Accuracy by method and fraction, then what the main method's models cost."""
    usual = _usual_size(rows)
    rows = [row for row in rows if row.job.images == usual]
    fractions = sorted({row.job.fraction for row in rows}, reverse=True)
    good = [row for row in rows if row.fault is None]
    lines = [f"### {network}.onnx", "", _caption(good, usual), ""]
    lines += _header("method", [f"{fraction:.0%} MACs" for fraction in fractions])
    for method in dict.fromkeys(row.job.method for row in rows):
        mine = [row for row in good if row.job.method == method]
        cells = [_cell([r for r in mine if r.job.fraction == f], f) for f in fractions]
        lines.append(_line(method, cells))
    mine = [row for row in good if row.job.method == MAIN]
    for label, value in COSTS.items():
        found = [[value(r) for r in mine if r.job.fraction == f] for f in fractions]
        if any(v is not None for values in found for v in values):
            lines.append(_line(f"its {label}", [_mean(values) for values in found]))
    if any(row.job.draw for row in mine):
        spread = [_spread([r.accuracy for r in mine if r.job.fraction == f]) for f in fractions]
        lines.append(_line("its draws, lowest and highest", spread))
    return "\n".join(lines + _faults(rows))


COSTS: dict[str, Callable[[Row], float | None]] = {
    "params": lambda row: row.params,
    "latency, batch 1": lambda row: row.latency_1,
    "latency, batch 32": lambda row: row.latency_32,
}


def by_size(rows: Sequence[Row]) -> str:
    """Accuracy by the number of calibration images, where there are several."""
    lines = []
    for key in dict.fromkeys((row.job.network, row.job.fraction) for row in rows):
        own = [r for r in rows if (r.job.network, r.job.fraction) == key and r.fault is None]
        counts = sorted({row.job.images for row in own})
        several = {r.job.method for r in own if len(_sizes_of(r.job.method, own)) > 1}
        if len(counts) < 2:
            continue
        lines += [f"### Calibration images: {key[0]}.onnx, {key[1]:.0%} MACs", ""]
        lines += _header("method", [str(count) for count in counts])
        for method in (m for m in dict.fromkeys(r.job.method for r in own) if m in several):
            mine = [row for row in own if row.job.method == method]
            cells = [_draws([r.accuracy for r in mine if r.job.images == n]) for n in counts]
            lines.append(_line(method, cells))
    return "\n".join(lines)


def by_kind(rows: Sequence[Row]) -> str:
    """Accuracy by the kind of calibration images, where there are several."""
    other = {_setting(row.job) for row in rows if row.job.calibration != OWN}
    mine = [row for row in rows if _setting(row.job) in other and row.fault is None]
    if not mine:
        return ""
    kinds = list(dict.fromkeys(row.job.calibration for row in mine))
    lines = ["### Kind of the calibration images", ""]
    lines += _header("network, method, MACs", kinds)
    for setting in dict.fromkeys(_setting(row.job) for row in mine):
        same = [row for row in mine if _setting(row.job) == setting]
        cells = [_draws([r.accuracy for r in same if r.job.calibration == k]) for k in kinds]
        network, method, fraction, _ = setting
        lines.append(_line(f"{network}.onnx, {method}, {fraction:.0%}", cells))
    return "\n".join(lines)


def rivals(rows: Sequence[Row]) -> str:
    """A pruned network beside a smaller one."""
    good = [row for row in rows if row.fault is None]
    if not good:
        return ""
    lines = ["### A larger network pruned to the MACs of a smaller one", ""]
    columns = ["accuracy", "of the smaller one", "difference", "MACs", "params", "latency"]
    lines += _header("pruned, smaller, method", columns)
    for key in dict.fromkeys((r.job.network, r.job.reference, r.job.method) for r in good):
        own = [r for r in good if (r.job.network, r.job.reference, r.job.method) == key]
        cells = [
            f"{np.mean([r.accuracy for r in own]):.1f}",
            f"{own[0].base_accuracy:.1f}",
            _difference(own),
            _mean([r.macs for r in own]),
            _mean([r.params for r in own]),
            _mean([r.latency_1 for r in own]),
        ]
        lines.append(_line(", ".join(key), cells))
    return "\n".join(lines)


def _caption(rows: Sequence[Row], images: int) -> str:
    if not rows:
        return f"{images} calibration images; nothing could be measured."
    first = rows[0]
    return (
        f"{images} calibration images, {first.tests} test images, original "
        f"{first.base_accuracy:.1f} %. In parentheses the difference to the original and its "
        "standard error over the test images, paired."
    )


def _cell(rows: Sequence[Row], fraction: float) -> str:
    """Mean accuracy over draws, the difference, and MACs that are not as wanted."""
    if not rows:
        return NONE
    macs = float(np.mean([row.macs for row in rows]))
    off = f", {macs:.0%} MACs" if abs(macs - fraction) > OFF else ""
    return f"{np.mean([row.accuracy for row in rows]):.1f} ({_difference(rows)}{off})"


def _difference(rows: Sequence[Row]) -> str:
    """Mean over draws; they share the test images, so the standard error does not shrink."""
    difference = np.mean([row.difference for row in rows])
    return f"{difference:+.1f} ± {np.mean([row.standard_error for row in rows]):.1f}"


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.0%}" if known else NONE


def _draws(values: Sequence[float]) -> str:
    """Mean over draws and their standard deviation."""
    if not values:
        return NONE
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if values[1:] else "")


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}" if values else NONE


def _faults(rows: Sequence[Row]) -> list[str]:
    """What could not be measured, a line for each reason."""
    reasons: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.fault is not None:
            reasons.setdefault((row.job.method, row.fault), []).append(row.job.fraction)
    return [""] * bool(reasons) + [
        f"- {method} at {', '.join(f'{f:.0%}' for f in fractions)}: {fault}"
        for (method, fault), fractions in reasons.items()
    ]


def _usual_size(rows: Sequence[Row]) -> int:
    """The number of calibration images that most rows have."""
    counts = [row.job.images for row in rows]
    return max(dict.fromkeys(counts), key=counts.count)


def _sizes_of(method: str, rows: Sequence[Row]) -> set[int]:
    return {row.job.images for row in rows if row.job.method == method}


def _setting(job: Job) -> tuple[str, str, float, int]:
    return job.network, job.method, job.fraction, job.images


def _header(first: str, columns: Sequence[str]) -> list[str]:
    return [_line(first, columns), "|---|" + "---:|" * len(columns)]


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"
