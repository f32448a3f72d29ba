"""The widths of all layers before and after, what was dropped, and what stayed whole and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from onnxprune.group_labels import group_labels
from onnxprune.page.axes import Frame, Scale
from onnxprune.page.svg import bar, element, picture, text
from onnxprune.page.wording import percent
from onnxprune.report_parts import FrozenReport, LayerReport, SectionReport
from onnxprune.saved_report import SavedReport

LEFT, TOP, HEIGHT = 44, 30, 200
ROOM = 22
"""Characters of a layer's label."""
LETTER = 6.2
"""Pixels for one of them."""
PLOT = 1020
NARROW, BROAD = 15, 90
"""The least and the most pixels for one layer."""
WIDE_RANGE = 16
"""Widths that differ by a larger factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Layers:
    """The layers of the page.

    Attributes:
        chart: their widths.
        rows: the same in numbers.
        sections: the residual sections that were dropped.
        frozen: what could not be cut.
    """

    chart: Markup
    rows: Sequence[LayerReport]
    sections: Sequence[SectionReport]
    frozen: Sequence[FrozenReport]


def layers(report: SavedReport) -> Layers:
    """The layers of a report's page."""
    rows = [layer for layer in report.layers if layer.size]
    return Layers(_chart(rows) if rows else Markup(""), rows, report.sections, report.frozen)


def _chart(rows: Sequence[LayerReport]) -> Markup:
    pitch = min(max(PLOT / len(rows), NARROW), BROAD)
    width = LEFT + pitch * len(rows) + 8
    sizes = [layer.size for layer in rows]
    wide = max(sizes) > WIDE_RANGE * min(sizes)
    low, base = (0.5, 2) if wide else (0.0, None)
    y = Scale(low, float(max(sizes)), TOP + HEIGHT, TOP, base)
    frame = Frame(Scale(0, len(rows), LEFT, LEFT + pitch * len(rows)), y)
    ticks = [tick for tick in y.ticks(6) if tick >= 1 or not wide]
    label = "channels, logarithmic" if wide else "channels"
    drawn = [frame.vertical(label, ticks, [f"{tick:g}" for tick in ticks])]
    labels = group_labels([layer.name for layer in rows], ROOM)
    below = 44 + LETTER * max(map(len, labels))
    for at, (layer, words) in enumerate(zip(rows, labels, strict=True)):
        drawn.append(_bars(frame, at, pitch, layer, words))
    drawn.append(frame.horizontal("", []))
    middle = (frame.x.start + frame.x.stop) / 2
    height = TOP + HEIGHT + below
    words = "layer, from input to output"
    drawn.append(text(middle, height - 6, words, "axis-label", text_anchor="middle"))
    cut = sum(layer.kept < layer.size for layer in rows)
    said = (
        f"Bar chart of the channels of {len(rows)} layers before and after, from input to output; "
        f"{cut} became narrower, {sum(layer.kept == 0 for layer in rows)} were dropped. The table "
        "below has the numbers."
    )
    return picture(width, height, said, *drawn, classes="wide")


def _bars(frame: Frame, at: int, pitch: float, layer: LayerReport, words: str) -> Markup:
    left, base = frame.x(at), frame.y.start
    gap = 0.14 * pitch
    kept = percent(layer.kept / layer.size)
    title = f"{layer.name}: {layer.size} → {layer.kept} channels ({kept} kept)"
    full, part = frame.y(layer.size), frame.y(layer.kept) if layer.kept else base
    inner = 0.24 * pitch
    place = left + pitch / 2 + 3.5, base + 8
    turned = f"rotate(-90 {place[0]:.1f} {place[1]:.1f})"
    return element(
        "g",
        element("title", title),
        bar(left + gap, full, pitch - 2 * gap, base - full, "before"),
        bar(left + inner, part, pitch - 2 * inner, base - part, "after"),
        text(*place, words, "tick", text_anchor="end", transform=turned),
        class_="layer",
    )
