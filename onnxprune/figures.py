"""The figure of a run: what its report says of every channel group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from onnxprune.errors import ReportError
from onnxprune.group_labels import group_labels
from onnxprune.panels import LATENCY, PANELS
from onnxprune.replacing import explained
from onnxprune.saved_report import LEVEL_SETTINGS, SavedReport

UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Metadata of formats that would differ from run to run, and how to leave it out."""
BARS, LINES = ["widths", "kept", "components"], ["variance", "spectrum", "prices"]
SIDE_BY_SIDE = 16
"""Up to so many groups, panels with bars stand beside each other; more need the whole width."""
LABELS = 100
"""So many groups can be labelled in the whole width; of more, every second one is, or fewer."""
BAR_LABELS = 32
"""So many groups can be labelled at the height of one panel."""
ROOM = 24
"""Characters of a group's label."""
STYLE = (
    "default",  # whatever the user's own settings are
    {
        "svg.hashsalt": "onnxprune",  # the same file for the same numbers
        "font.size": 8,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 7,
    },
)


def draw(report: SavedReport) -> Figure:
    """A figure with every panel of ``PANELS``; its axes are labelled with the panels' names.

    Below them is a histogram of latency, "latency", if the report holds durations of runs.

    Raises:
        ReportError: the report has no groups.
    """
    if not report.groups:
        raise ReportError("the report has no channel groups: there is nothing to plot")
    few = len(report.groups) <= SIDE_BY_SIDE
    timed = [report.before.latency, report.after.latency]
    runs = all(each is not None and each.durations for each in timed)
    with style.context(list(STYLE)):
        height = (7 if few else 11) + 2 * runs
        figure = Figure(figsize=(12, height), layout="constrained")
        upper = [BARS] if few else [[name] * len(LINES) for name in BARS]
        rows: list[Any] = [*upper, LINES, *[["latency"] * len(LINES)] * runs]
        heights = [*(1.0 for _ in upper), 1.2 if few else 1.8, *[0.6] * runs]
        axes = figure.subplot_mosaic(rows, height_ratios=heights)
        labels = group_labels([group.name for group in report.groups], ROOM)
        colours = _colours(len(labels))
        for letter, (name, panel) in zip("abcdef", PANELS.items(), strict=True):
            panel.draw(axes[name], report, colours)
            _head(axes[name], f"({letter}) {panel.title}")
        if runs:
            LATENCY.draw(axes["latency"], report, colours)
            _head(axes["latency"], f"(g) {LATENCY.title}")
        for name in BARS:
            _name_bars(axes[name], labels, shown=few or name == BARS[-1])
        _name_colours(figure, [axes[name] for name in LINES], labels, colours)
        figure.suptitle(_title(report), fontsize=10, parse_math=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure makes the same bytes.

    Args:
        figure: the figure.
        path: where to; the ending says in which format, of those that matplotlib knows.

    Raises:
        OnnxPruneError: the file cannot be written.
    """
    kind = path.suffix[1:].lower()
    with explained(path), style.context(list(STYLE)):
        _settle(figure)
        figure.savefig(path, format=kind, dpi=150, metadata=UNDATED.get(kind))


def _settle(figure: Figure) -> None:
    """Fix what the layout found, without its last digits, which differ from run to run."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(tuple(round(extent, 5) for extent in axes.get_position().bounds))


def _colours(count: int) -> ListedColormap:
    """One colour per group, even in lightness and without the end that is faint on white."""
    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count)))


def _head(axes: Axes, title: str) -> None:
    """The title, and beside it the legend of what has a label, unless the panel has room for it."""
    axes.set_title(title, loc="left")
    handles, labels = axes.get_legend_handles_labels()
    if handles and axes.get_legend() is None:
        axes.legend(
            handles,
            labels,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0.2,
            ncols=len(handles),
            handlelength=1.0,
            handletextpad=0.4,
            columnspacing=0.7,
        )


def _name_bars(axes: Axes, labels: Sequence[str], shown: bool) -> None:
    """The groups' labels under their bars, as many as there is room for."""
    step = -(-len(labels) // LABELS)
    places = np.arange(0, len(labels), step)
    names = list(labels[::step]) if shown else []
    axes.set_xticks(places, names or [""] * len(places), rotation=90, fontsize=6, parse_math=False)
    axes.set_xlim(-0.7, len(labels) - 0.3)
    axes.grid(visible=False, axis="x")


def _name_colours(
    figure: Figure, axes: Sequence[Axes], labels: Sequence[str], colours: ListedColormap
) -> None:
    """A bar beside the panels with lines that says which colour is which group."""
    count = len(labels)
    norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(axes), aspect=30, pad=0.01)
    bar.ax.invert_yaxis()
    bar.ax.tick_params(which="both", length=0)
    step = -(-count // BAR_LABELS)
    bar.set_ticks(np.arange(0, count, step).tolist(), minor=False)
    bar.ax.set_yticklabels(labels[::step], fontsize=6, parse_math=False)
    bar.set_label("channel group, from input to output")


def _title(report: SavedReport) -> str:
    """What was run, and what is left."""
    settings, groups = report.settings, report.groups
    words = [f"method {settings['method']}", f"criterion {settings['criterion']}"]
    words += [f"order {settings['order']}"] * (settings["criterion"] == "snp")
    plain = settings["criterion"] != "squeeze" and settings["moments"] == "covariance"
    words += [] if plain else [f"moments {settings['moments']}"]
    words += [f"allocation {settings['allocation']}", f"recovery {settings['recovery']}"]
    asked = [f"{key} {settings[key]:g}" for key in LEVEL_SETTINGS if settings[key] is not None]
    asked += [f"target {', '.join(settings['target'])}"] if settings["target"] else []
    kept, total = sum(len(g.keep) for g in groups), sum(g.size for g in groups)
    left = f"{report.macs:.1%} of the MACs, {report.params:.1%} of the parameters, "
    channels = f"{kept} of {total} channels in {len(groups)} groups are kept"
    return f"{', '.join([*words, *asked])}\n{left}{channels}"
