"""Draws what ``bench_papers.py`` measured: accuracy along the MACs, before and after recovery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from curve_rows import Counts
from matplotlib import pyplot
from measurements import Measurement

STYLES = {"not recovered": ":", "one-shot": "--", "in order": "-"}
COLOURS = {"snp": "#0072b2", "squeeze": "#d55e00", "onnxprune": "#000000"}


def draw(rows: Sequence[Measurement], path: Path) -> None:
    """Write a file with a panel for each network."""
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    rows = [row for row in rows if row["part"] == "recovery"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(networks), figsize=(4 * len(networks) + 2, 3.6), layout="constrained", squeeze=False
    )
    for axes, network in zip(panels[0], networks, strict=True):
        own = [row for row in rows if row["network"] == network]
        for variant in dict.fromkeys(row["variant"] for row in own):
            method, way = variant.split(", ")
            points = [row for row in own if row["variant"] == variant]
            axes.plot(
                [100 * row["macs"] for row in points],
                [Counts.of(row).accuracy for row in points],
                STYLES[way],
                color=COLOURS[method],
                marker=".",
                label=variant,
            )
        base = Counts.of(own[0]).base_accuracy
        axes.axhline(base, color="grey", linewidth=0.8)
        axes.set_title(f"{network} (original {base:.1f} %)", fontsize=9)
        axes.set_xlabel("MACs kept, %")
    panels[0][0].set_ylabel("test accuracy, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
