"""The figure of a sweep: what models do, against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxprune.figures import STYLE
from onnxprune.frontier import Frontier, Point

Value = Callable[[Point], float | None]
NEAR_THE_EDGE = 0.75
"""Share of a cost beyond which a name stands on the left of its point."""
BLUE, GREY = "#1f5fa8", "#6b6b6b"


def draw_frontier(frontier: Frontier) -> Figure:
    """A row of panels for every measure of quality, a column for every cost."""
    costs, measures = _costs(frontier), _measures(frontier)
    models = [point for point in frontier.points if point.is_model]
    with style.context(list(STYLE)):
        size = (3.4 * len(costs) + 0.6, 2.7 * len(measures) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(measures), len(costs), squeeze=False, sharey="row")
        for row, (title, quality, before) in zip(grid, measures, strict=True):
            for axes, (name, cost) in zip(row, costs, strict=True):
                _panel(axes, models, cost, quality)
                if before is not None:
                    axes.plot([1.0], [before], "o", color=GREY, mfc="white", label="original")
                axes.set_xlabel(f"{name}, of the original")
                largest = max((cost(point) or 0.0 for point in models), default=0.0)
                axes.set_xlim(0.0, 1.05 * max(1.0, largest))
            row[0].set_ylabel(title)
        for axes, (_, cost) in zip(grid[0], costs, strict=True):
            for point in models:
                _name(axes, point, cost, measures[0][1])
        figure.suptitle(
            f"{len(models)} models under {len(frontier.points)} budgets, "
            f"{frontier.samples} held-out samples",
            fontsize=10,
        )
    return figure


def _panel(axes: Axes, models: Sequence[Point], cost: Value, quality: Value) -> None:
    pairs = [(cost(point), quality(point)) for point in models]
    known = sorted((x, y) for x, y in pairs if x is not None and y is not None)
    axes.plot([x for x, _ in known], [y for _, y in known], "o-", color=BLUE, markersize=4)


def _name(axes: Axes, point: Point, cost: Value, quality: Value) -> None:
    x, y = cost(point), quality(point)
    if x is not None and y is not None:
        right = x > NEAR_THE_EDGE
        axes.annotate(
            point.budget,
            (x, y),
            textcoords="offset points",
            xytext=(-4 if right else 4, 4),
            ha="right" if right else "left",
            fontsize=6,
            parse_math=False,
        )


def _costs(frontier: Frontier) -> list[tuple[str, Value]]:
    full = frontier.original
    found: list[tuple[str, Value]] = [
        ("MACs", lambda point: _ratio(point.macs, full.macs)),
        ("parameters", lambda point: _ratio(point.params, full.params)),
    ]
    if full.latency is not None:
        whole = full.latency.median
        found.append(
            (
                "measured latency",
                lambda point: None if point.latency is None else point.latency.median / whole,
            )
        )
    return found


def _ratio(own: int | None, full: int | None) -> float | None:
    return own / full if own is not None and full else None


def _measures(frontier: Frontier) -> list[tuple[str, Value, float | None]]:
    """Title, value of a model and that of the original: the user's metric, or what is known."""
    if frontier.metric:
        return [(frontier.metric, lambda point: point.metric, frontier.original.metric)]
    found: list[tuple[str, Value, float | None]] = [
        ("relative error", lambda point: point.relative_error, 0.0)
    ]
    if any(point.agreement is not None for point in frontier.points):
        found.append(("same top class", lambda point: point.agreement, 1.0))
    return found
