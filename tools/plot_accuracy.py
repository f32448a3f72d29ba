"""Draws what ``bench_accuracy.py`` measured: docs/results/accuracy.svg.

python tools/plot_accuracy.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from measurements import recorded

COLUMNS = 2
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"
SERIES = (
    ("none", "uniform", "sliced, uniform", "#c9c9c9"),
    ("none", "sensitivity", "sliced, measured", "#8f8f8f"),
    ("least-squares", "uniform", "recovered, uniform", "#9ecae1"),
    ("least-squares", "sensitivity", "recovered, measured", "#1f6fb4"),
)


def main() -> None:
    """One panel per network: accuracy at half the MACs for every criterion."""
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    rows = [row for row in recorded(FOLDER / "accuracy.jsonl") if row["macs_target"] == 0.5]
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines_of_panels = -(-len(models) // COLUMNS)
    figure, panels = pyplot.subplots(
        lines_of_panels,
        COLUMNS,
        figsize=(5 * COLUMNS, 3 * lines_of_panels),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in panels.flat[len(models) :]:
        axes.set_visible(False)
    for axes, model in zip(panels.flat, models, strict=False):
        draw(axes, model, [row for row in rows if row["model"] == model])
    figure.supylabel("test accuracy at 50 % of the MACs, %", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(SERIES), fontsize=8)
    figure.savefig(FOLDER / "accuracy.svg", metadata={"Date": None})


def draw(axes: Axes, model: str, rows: list[dict[str, Any]]) -> None:
    """The bars of one network, and a line for the original."""
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    places = np.arange(len(criteria))
    for number, (recovery, allocation, label, colour) in enumerate(SERIES):
        found = {
            row["criterion"]: row["accuracy"]
            for row in rows
            if (row["recovery"], row["allocation"]) == (recovery, allocation)
        }
        heights = [found.get(criterion, 0.0) for criterion in criteria]
        axes.bar(places + (number - 1.5) * 0.2, heights, 0.2, label=label, color=colour)
    axes.axhline(rows[0]["base"], color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks(places, criteria)
    axes.set_title(f"{model} (original {rows[0]['base']:.1f} %)", fontsize=9)


if __name__ == "__main__":
    main()
