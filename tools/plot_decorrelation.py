"""Draws what ``bench_decorrelation.py`` measured: loss and accuracy along epochs and time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from decorrelation_tables import ACCURACY, EPOCH, SECONDS, TRAIN_LOSS
from matplotlib import pyplot
from measurements import Measurement

COLOURS = {"backprop": "#000000", "decorrelated": "#0072b2"}
PANELS = (
    (EPOCH, TRAIN_LOSS, "epochs", "train loss"),
    (SECONDS, TRAIN_LOSS, "seconds", "train loss"),
    (EPOCH, ACCURACY, "epochs", "test accuracy, %"),
    (SECONDS, ACCURACY, "seconds", "test accuracy, %"),
)


def draw(rows: Sequence[Measurement], path: Path) -> None:
    """Write a file with a row of panels for each network and a line for each seed."""
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    rows = [row for row in rows if row["part"] == "training"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, grid = pyplot.subplots(
        len(networks),
        len(PANELS),
        figsize=(3.2 * len(PANELS), 2.8 * len(networks)),
        layout="constrained",
        squeeze=False,
    )
    for axes_row, network in zip(grid, networks, strict=True):
        for axes, (x, y, x_label, y_label) in zip(axes_row, PANELS, strict=True):
            for row in (row for row in rows if row["network"] == network):
                curve = np.array(row["curve"][1:], float)
                label = row["method"] if row["seed"] == 0 else None
                values = (100 if y == ACCURACY else 1) * curve[:, y]
                axes.plot(
                    curve[:, x], values, color=COLOURS[row["method"]], linewidth=0.9, label=label
                )
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.set_title(network, fontsize=9)
    grid[0][0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
