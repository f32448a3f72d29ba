"""Draws what ``bench_refine.py`` measured: accuracy by minutes of refinement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from curve_rows import Counts
from matplotlib import pyplot
from measurements import Measurement

KIND = ("images", "changes", "provider")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def draw(rows: Sequence[Measurement], path: Path) -> None:
    """Write a file with a panel for each network and share of MACs; bars are standard errors."""
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    panels = list(dict.fromkeys((row["network"], row["fraction"]) for row in rows))
    kinds = list(dict.fromkeys(tuple(row[name] for name in KIND) for row in rows))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3 * len(panels) + 2, 3.4), layout="constrained", squeeze=False
    )
    for place, (network, fraction) in zip(axes[0], panels, strict=True):
        own = [row for row in rows if (row["network"], row["fraction"]) == (network, fraction)]
        for kind, colour in zip(kinds, COLOURS, strict=False):
            points = sorted(
                (row for row in own if tuple(row[name] for name in KIND) == kind),
                key=lambda row: float(row["minutes"]),
            )
            if not points:
                continue
            gains = [Counts.of(row["with_pruned"]) for row in points]
            images, changes, provider = kind
            label = f"{images} images" + (", flipped and moved" if changes == "images" else "")
            label += ", CUDA" if provider == "cuda" else ""
            place.errorbar(
                [0.0, *(row["minutes"] for row in points)],
                [gains[0].base_accuracy, *(gain.accuracy for gain in gains)],
                [0.0, *(gain.standard_error for gain in gains)],
                color=colour,
                marker=".",
                label=label,
            )
        base = Counts.of(own[0]["with_original"]).base_accuracy
        place.axhline(base, color="grey", linewidth=0.8)
        place.set_title(f"{network}, {fraction:.0%} of MACs", fontsize=8)
        place.set_xlabel("minutes of refinement")
    axes[0][0].set_ylabel("test accuracy, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
