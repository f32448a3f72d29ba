"""How long runs took, before and after: two histograms over one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from onnxprune.latency import Latency
from onnxprune.page.axes import Frame, Scale
from onnxprune.page.svg import bar, line, picture, text
from onnxprune.page.wording import milliseconds
from onnxprune.saved_report import SavedReport

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM, GAP = 640, 92, 46, 16, 28, 40, 34
BINS = 40


@dataclass(frozen=True)
class Times:
    """The histograms, and the numbers they show.

    Attributes:
        chart: both histograms.
        rows: (model, its latency).
        counted: (model, runs that count, runs in all).
        beyond: runs that took longer than the chart shows.
        longest: the longest of them.
        conditions: how it was measured, in words.
    """

    chart: Markup
    rows: Sequence[tuple[str, Latency]]
    counted: Sequence[tuple[str, int, int]]
    beyond: int
    longest: float
    conditions: str


def latency(report: SavedReport) -> Times | None:
    """The histograms of a report; None where nothing was timed."""
    before, after = report.before.latency, report.after.latency
    if before is None or after is None:
        return None
    rows = [("before", before), ("after", after)]
    settings = report.settings
    threads, batch = settings.get("threads"), settings.get("latency_batch") or 1
    conditions = (
        f"Provider {settings.get('provider')}, "
        f"{threads} thread{'s' * (threads != 1)}, "
        f"batches of {batch}, runs of both models in turns."
    )
    end = max(before.drawn_to, after.drawn_to)
    return Times(
        _chart(rows, end) if before.durations and after.durations else Markup(""),
        rows,
        [(name, len(timed.durations), timed.runs) for name, timed in rows],
        sum(duration > end for _, timed in rows for duration in timed.durations),
        max(max(timed.durations, default=0.0) for _, timed in rows),
        conditions,
    )


def _chart(rows: Sequence[tuple[str, Latency]], end: float) -> Markup:
    start = min(timed.durations[0] for _, timed in rows)
    margin = 0.04 * (end - start) or 0.05 * end or 1.0
    height = TOP + len(rows) * ROW + (len(rows) - 1) * GAP + BOTTOM
    x = Scale(max(start - margin, 0.0), end + margin, LEFT, WIDTH - RIGHT)
    edges = np.linspace(x.low, x.high, BINS + 1)
    counts = [np.histogram(timed.durations, edges)[0] for _, timed in rows]
    most = max(int(each.max()) for each in counts) or 1
    drawn: list[Markup] = []
    for at, ((name, timed), each) in enumerate(zip(rows, counts, strict=True)):
        top = TOP + at * (ROW + GAP)
        frame = Frame(x, Scale(0, most, top + ROW, top))
        drawn.append(frame.vertical(f"{name}, runs", [0.0, float(most)]))
        drawn += _bars(frame, name, edges.tolist(), each.tolist())
        drawn += _median(frame, timed.median)
        if at == len(rows) - 1:
            drawn.append(frame.horizontal("time of a run, ms", x.ticks(8)))
        else:
            drawn.append(line(x.start, top + ROW, x.stop, top + ROW, "axis"))
    said = "; ".join(
        f"{name}: median {milliseconds(timed.median)}, 90th percentile {milliseconds(timed.p90)}, "
        f"99th {milliseconds(timed.p99)}"
        for name, timed in rows
    )
    return picture(WIDTH, height, f"Histograms of the time of a run. {said}.", *drawn)


def _bars(frame: Frame, name: str, edges: Sequence[float], counts: Sequence[int]) -> list[Markup]:
    bars = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            left, right, top = frame.x(low), frame.x(high), frame.y(count)
            title = f"{name}: {count} runs of {low:.4g} to {high:.4g} ms"
            place = left + 0.5, top, max(right - left - 1, 0.5), frame.y.start - top
            bars.append(bar(*place, name, title))
    return bars


def _median(frame: Frame, median: float) -> list[Markup]:
    at = frame.x(median)
    right = at > (frame.x.start + frame.x.stop) / 2
    anchor, shift = ("end", -5) if right else ("start", 5)
    words = f"median {milliseconds(median)}"
    return [
        line(at, frame.y.start, at, frame.y.stop - 12, "chosen"),
        text(at + shift, frame.y.stop - 4, words, "mark", text_anchor=anchor),
    ]
