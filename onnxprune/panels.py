"""The panels of a run's figure, each drawn on axes it is given.

Bars stand for channel groups in the network's order; lines run over the share of a group's channels
that is kept and have one colour per group, dark for those near the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from onnxprune.arrays import IndexArray, Vector
from onnxprune.report_parts import GroupReport
from onnxprune.saved_report import SavedReport

LEVELS = (0.9, 0.99, 0.999)
"""Shares of the variance for which principal components are counted."""
BEFORE = "#cfcfcf"
LEVEL_COLOURS = ("#08519c", "#5b9fd0", "#bdd7ee")
"""One hue, from dark to light: the order shows without colour vision and in grey."""
LINE = "#202020"
WIDE_RANGE = 16
"""Widths that differ by a larger factor are drawn on a logarithmic axis."""
BINS = 40
"""Of histograms."""
DYNAMIC_RANGE = 1e-6
"""Logarithmic lines end below this part of their largest value, which is rounding."""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        draw: draws it, given axes, the report and one colour per group.
    """

    title: str
    draw: Callable[[Axes, SavedReport, Colormap], None]


def _widths(axes: Axes, report: SavedReport, colours: Colormap) -> None:
    sizes = [group.size for group in report.groups]
    kept = [len(group.keep) for group in report.groups]
    places = np.arange(len(sizes))
    axes.bar(places, sizes, color=BEFORE, label="before")
    axes.bar(places, kept, width=0.55, color=colours(places), label="after")
    if max(sizes) > WIDE_RANGE * min(sizes):
        axes.set_yscale("log", base=2)
        axes.set_ylim(bottom=1 / np.sqrt(2))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("channels")


def _kept(axes: Axes, report: SavedReport, colours: Colormap) -> None:
    sizes = np.array([group.size for group in report.groups])
    kept = np.array([len(group.keep) for group in report.groups])
    places = np.arange(sizes.size)
    axes.bar(places, kept / sizes, color=colours(places))
    overall = float(kept.sum() / sizes.sum())
    axes.axhline(overall, color=LINE, linestyle="--", linewidth=1, label=f"all: {overall:.1%}")
    _share_of_width(axes, "channels kept, % of width")


def _components(axes: Axes, report: SavedReport, _: Colormap) -> None:
    sizes = np.array([group.size for group in report.groups])
    places = np.arange(sizes.size)
    for behind, (level, colour) in enumerate(zip(LEVELS, LEVEL_COLOURS, strict=True)):
        needed = [group.spectrum.needed(1 - level) for group in report.groups]
        name, order = f"{100 * level:g}%", 1 - 0.1 * behind  # what is smaller stays in sight
        axes.bar(places, needed / sizes, color=colour, label=name, zorder=order)
    if report.settings["allocation"] == "information" and report.share is not None:
        needed = [group.spectrum.needed(report.share) for group in report.groups]
        label = f"τ = {1 - report.share:.3g}"
        axes.plot(places, needed / sizes, "_", color=LINE, markersize=7, label=label)
    _share_of_width(axes, "principal components for\nshare of variance, % of width")


def _share_of_width(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel(label)


def _cumulative_variance(axes: Axes, report: SavedReport, colours: Colormap) -> None:
    for group, colour in _coloured(report, colours):
        counts = np.arange(group.size + 1)
        left = group.spectrum.cumulative_variance
        _line(axes, group, counts, left, len(group.keep), colour)
    axes.plot([], [], "o", color=LINE, markersize=4, label="count chosen (d, e, f)")
    if report.settings["allocation"] == "cumvar" and report.share is not None:
        label = f"cut-off reached, p = {report.share:.3g}"
        axes.axhline(report.share, color=LINE, linestyle="--", linewidth=1, label=label)
    axes.legend(loc="upper right")
    axes.set_ylim(0, 1.03)
    _share_kept(axes, "cumulative variance v of channels cut")


def _spectrum(axes: Axes, report: SavedReport, colours: Colormap) -> None:
    axes.set_yscale("log")
    for group, colour in _coloured(report, colours):
        pivots = np.asarray(group.spectrum.pivots, np.float64)
        counts = np.arange(1, group.size + 1)
        largest = float(pivots.max()) or 1.0
        _line(axes, group, counts, pivots / largest, len(group.keep), colour)
    _share_kept(axes, "pivot D / largest pivot")
    axes.set_xlabel("place in the order, % of width")


def _prices(axes: Axes, report: SavedReport, colours: Colormap) -> None:
    axes.set_yscale("log")
    measured = any(price.divergence is not None for g in report.groups for price in g.curve)
    for group, colour in _coloured(report, colours):
        counts = np.array([price.count for price in group.curve])
        prices = [price.divergence if measured else price.error for price in group.curve]
        values = np.array([np.nan if price is None else price for price in prices])
        _line(axes, group, counts, values, len(group.keep), colour)
    what = "predicted divergence of outputs" if measured else "relative error of consumers"
    _share_kept(axes, what)


def _coloured(
    report: SavedReport, colours: Colormap
) -> Sequence[tuple[GroupReport, tuple[float, float, float, float]]]:
    return [(group, colours(at)) for at, group in enumerate(report.groups)]


def _line(
    axes: Axes,
    group: GroupReport,
    counts: IndexArray,
    values: Vector,
    kept: int,
    colour: tuple[float, float, float, float],
) -> None:
    """One group's values at its counts, those at the count that was chosen marked."""
    if axes.get_yscale() == "log":
        least = max(DYNAMIC_RANGE * float(values.max()), float(np.finfo(np.float64).tiny))
        values = np.where(values >= least, values, np.nan)
    axes.plot(
        counts / group.size,
        values,
        color=colour,
        linewidth=1,
        marker="o",
        markersize=4,
        markevery=np.flatnonzero(counts == kept).tolist(),
        label=f"_{group.name}",
    )


def _share_kept(axes: Axes, label: str) -> None:
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("channels kept, % of width")
    axes.set_ylabel(label)


def _latency(axes: Axes, report: SavedReport, _: Colormap) -> None:
    """Durations of runs before and after in the same bins; the few long ones lie beyond."""
    before, after = report.before.latency, report.after.latency
    assert before is not None
    assert after is not None
    start = min(before.durations[0], after.durations[0])
    edges = np.linspace(start, max(before.drawn_to, after.drawn_to), BINS + 1)
    for timed, colour, name in ((before, BEFORE, "before"), (after, LEVEL_COLOURS[0], "after")):
        label = f"{name}, median {timed.median:.3g} ms"
        axes.hist(timed.durations, edges.tolist(), color=colour, alpha=0.75, label=label)
        axes.axvline(timed.median, color=LINE, linestyle="--", linewidth=1)
    axes.set_xlabel("time of a run, ms")
    axes.set_ylabel("runs")


LATENCY = Panel("Latency", _latency)
"""The panel of runs that were timed, for a report that holds their durations."""

PANELS = {
    "widths": Panel("Width", _widths),
    "kept": Panel("Layer-wise ratios", _kept),
    "components": Panel("PCs for", _components),
    "variance": Panel("Cumulative variance", _cumulative_variance),
    "spectrum": Panel("Pivots D of C = L D Lᵀ", _spectrum),
    "prices": Panel("Sensitivity to pruning", _prices),
}
"""The panels by their names; the first three have bars for groups, the others lines."""
