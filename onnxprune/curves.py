"""The figure of a training: loss, accuracy, learning rate, and what a method logs beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from onnxprune.figures import STYLE
from onnxprune.train.history import COLUMNS, Row

TRAINING, VALIDATION, OTHER = "#9ecae1", "#08519c", "#202020"
PANELS_IN_A_ROW = 3
FEW = 32
"""Points that are few enough to be marked."""


def draw_history(rows: Sequence[Row]) -> Figure:
    """A panel for each kind of number, over the steps.

    Args:
        rows: the history.

    Returns:
        The figure; its axes are labelled loss, accuracy, learning rate, and as the other columns.
    """
    others = [name for name in rows[0] if name not in COLUMNS]
    panels = ["loss", "accuracy", "learning rate", *others]
    lines = -(-len(panels) // PANELS_IN_A_ROW)
    with style.context(list(STYLE)):
        figure = Figure(figsize=(12, 3.2 * lines), layout="constrained")
        for place, name in enumerate(panels):
            axes = figure.add_subplot(lines, PANELS_IN_A_ROW, place + 1, label=name)
            if name in ("loss", "accuracy"):
                _curve(axes, rows, f"train_{name}", "training", TRAINING)
                _curve(axes, rows, f"validation_{name}", "validation", VALIDATION)
                if axes.get_lines():
                    axes.legend()
            else:
                _curve(axes, rows, name.replace(" ", "_"), name, OTHER)
            axes.set_title(name, loc="left", parse_math=False)
            axes.set_xlabel("step")
            if name == "accuracy":
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _curve(axes: Axes, rows: Sequence[Row], column: str, label: str, colour: str) -> None:
    """A line through what is known of a column."""
    points = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
    if points:
        x, y = np.array(points, np.float64).T
        axes.plot(x, y, color=colour, label=label, marker="." if len(points) < FEW else None)
