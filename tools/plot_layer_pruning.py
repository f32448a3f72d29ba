"""Draws what ``bench_layer_pruning.py`` measured: theta of every section along the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from curve_rows import Counts
from matplotlib import pyplot
from measurements import Measurement

COLUMNS = 3


def draw(rows: Sequence[Measurement], path: Path) -> None:
    """Write a file with a panel for each network and price, of the first seed."""
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    drawn = [row for row in rows if row["kind"].startswith("gated") and row["seed"] == 0]
    lines = -(-len(drawn) // COLUMNS)
    figure, panels = pyplot.subplots(
        lines, COLUMNS, figsize=(3.6 * COLUMNS, 2.6 * lines), layout="constrained", squeeze=False
    )
    for axes, row in zip(panels.flat, drawn, strict=False):
        for trace in row["theta"].values():
            axes.plot(row["steps"], trace, linewidth=1)
        by = ", by gradient" if row["kind"] != "gated" else ""
        left = row["sections"] - len(row["cut"])
        axes.set_title(
            f"{row['network']}{by}\nprice {row['price']:g}: {left} of {row['sections']} left, "
            f"{Counts.of(row).accuracy:.1f} %",
            fontsize=8,
        )
        axes.set_ylim(-0.03, 1.03)
    for axes in panels.flat[len(drawn) :]:
        axes.axis("off")
    for axes in panels[:, 0]:
        axes.set_ylabel("theta", fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("step", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
