"""Draws what ``bench_curves.py`` measured: accuracy along the MACs, a file for each network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from curve_rows import OWN, Row
from curve_tables import MAIN
from matplotlib import pyplot
from matplotlib.axes import Axes

COLOURS = {
    "onnxprune": "#1f6fb4",
    "snp": "#2ca02c",
    "snp, repaired": "#176117",
    "grail": "#ff7f0e",
    "fold": "#9467bd",
    "grail, repaired": "#c46200",
    "fold, repaired": "#5e3a87",
    "l1, repaired": "#4d4d4d",
    "l1": "#8f8f8f",
    "onnxsim": "#d9a0a0",
    "onnxsim, refit": "#d62728",
    "Torch-Pruning": "#8c564b",
}


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Write ``curves-NETWORK.svg`` for every network into a folder."""
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    good = [r for r in rows if r.fault is None and r.job.reference == r.job.network]
    good = [row for row in good if row.job.calibration == OWN]
    for network in dict.fromkeys(row.job.network for row in good):
        figure, axes = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
        _panel(axes, network, [row for row in good if row.job.network == network])
        figure.legend(loc="outside right center", fontsize=7)
        figure.savefig(folder / f"curves-{network}.svg", metadata={"Date": None})
        pyplot.close(figure)


def _panel(axes: Axes, network: str, rows: Sequence[Row]) -> None:
    """A line for each method over the MACs its models have; bars are paired standard errors."""
    counts = [row.job.images for row in rows]
    rows = [row for row in rows if row.job.images == max(set(counts), key=counts.count)]
    for method in (name for name in COLOURS if any(r.job.method == name for r in rows)):
        own = [row for row in rows if row.job.method == method]
        points = []
        for fraction in sorted({row.job.fraction for row in own}):
            same = [row for row in own if row.job.fraction == fraction]
            values = [(r.macs, r.accuracy, r.standard_error) for r in same]
            points.append(np.mean(values, axis=0))
        macs, accuracy, error = np.transpose(points)
        width = 1.8 if method == MAIN else 1.0
        axes.errorbar(
            100 * macs,
            accuracy,
            error,
            label=method,
            color=COLOURS[method],
            linewidth=width,
            marker=".",
            capsize=2,
        )
    base = rows[0].base_accuracy
    axes.axhline(base, color="black", linewidth=0.8, linestyle="--")
    axes.set_title(f"{network} (original {base:.1f} %)", fontsize=9)
    axes.set_xlabel("MACs kept, %")
    axes.set_ylabel("test accuracy, %")
