"""The charts of one channel group, over the number of its channels that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from onnxprune.criteria.spectra import behind
from onnxprune.page.axes import Frame, Scale
from onnxprune.page.svg import dot, line, picture
from onnxprune.page.wording import small
from onnxprune.report_parts import GroupReport

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 256, 190, 42, 8, 30, 38
DYNAMIC_RANGE = 1e-6
"""Logarithmic axes end below this part of the largest value, which is rounding."""
TOUCHED = 24
"""Points of a curve that say their value where the pointer rests, at most."""
LEVELS = (0.9, 0.99, 0.999)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """A chart with its caption.

    Attributes:
        chart: the chart.
        title: what it shows.
        legend: (class of a line, what it is), where there are several.
        caption: what else it says.
    """

    chart: Markup
    title: str
    legend: Sequence[tuple[str, str]] = ()
    caption: str = ""


def figures(group: GroupReport) -> list[Figure]:
    """Sensitivity, then how the variance is spread."""
    errors = [(float(price.count), price.error) for price in group.curve]
    damages = [(float(p.count), p.divergence) for p in group.curve if p.divergence is not None]
    found = [_sensitivity(group, errors, "Error of its readers", "error")]
    if damages:
        found.append(_sensitivity(group, damages, "Predicted divergence", "divergence"))
    return [*found, _variance(group), _spectrum(group)]


def _sensitivity(group: GroupReport, points: Points, title: str, what: str) -> Figure:
    kept = len(group.keep)
    chosen = next(value for count, value in points if count == kept)
    ends = f"{small(points[0][1])} with {points[0][0]:g} channels"
    said = f"{title}: {ends}, {small(chosen)} with the {kept} of {group.size} that are kept."
    caption = f"{small(chosen)} at the {kept} channels kept."
    frame = _logarithmic(group, [points])
    if frame is None:
        return Figure(Markup(""), title, caption=f"{what.capitalize()} is 0 at every count.")
    seen = _visible(frame, points)
    drawn = [*_axes(frame, what), frame.path(seen, "after"), *_chosen(frame, kept)]
    step = -(-len(seen) // TOUCHED)
    drawn += [
        dot(frame.x(x), frame.y(y), 5, "touch", f"{x:g} channels: {what} {small(y)}")
        for x, y in seen[::step]
    ]
    if chosen >= frame.y.low:
        label = f"{kept} channels kept: {what} {small(chosen)}"
        drawn.append(dot(frame.x(kept), frame.y(chosen), 4.5, "choice", label))
    return Figure(picture(WIDTH, HEIGHT, said, *drawn), title, caption=caption)


def _variance(group: GroupReport) -> Figure:
    """The share of the variance that the first principal components, or channels, carry."""
    spectrum, kept = group.spectrum, len(group.keep)
    parts = {
        "second": behind(np.asarray(spectrum.components, np.float64)),
        "after": spectrum.cumulative_variance,
    }
    lines = {
        name: [(float(count), 1.0 - float(left)) for count, left in enumerate(values)]
        for name, values in parts.items()
    }
    frame = Frame(_counts(group), Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP))
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    drawn = [*_axes(frame, "share of variance", ticks, [f"{tick:.0%}" for tick in ticks])]
    drawn += [frame.path(points, name) for name, points in lines.items()]
    drawn += _chosen(frame, kept)
    needed = [(level, spectrum.needed(1 - level)) for level in LEVELS]
    for level, count in needed:
        title = f"{count} principal components carry {100 * level:g}% of the variance"
        drawn.append(dot(frame.x(count), frame.y(level), 3.5, "needed", title))
    carried = f"{lines['after'][kept][1]:.1%}"
    words = ", ".join(f"{count} for {100 * level:g}%" for level, count in needed)
    title = "Cumulative variance"
    said = (
        f"{title}: the {kept} channels kept carry {carried}; principal components needed: {words}."
    )
    legend = [("second", "first principal components"), ("after", "first channels, in the order")]
    caption = f"Kept channels carry {carried}. Components needed: {words}."
    return Figure(picture(WIDTH, HEIGHT, said, *drawn), title, legend, caption)


def _spectrum(group: GroupReport) -> Figure:
    """Variances of the principal components, and pivots of the channels in their order."""
    parts = {"second": group.spectrum.components, "after": group.spectrum.pivots}
    lines = {
        name: [(float(at), value / largest) for at, value in enumerate(values, 1)]
        for name, values in parts.items()
        for largest in [max(values) or 1.0]
    }
    title = "Spectrum"
    frame = _logarithmic(group, list(lines.values()))
    if frame is None:
        return Figure(Markup(""), title, caption="Its channels are 0 on all samples.")
    drawn = _axes(frame, "part of the largest", below="place in the order")
    drawn += [frame.path(_visible(frame, points), name) for name, points in lines.items()]
    drawn += _chosen(frame, len(group.keep))
    legend = [
        ("second", "variance of a principal component"),
        ("after", "pivot D of a channel: what those before it leave"),
    ]
    least = small(lines["second"][-1][1])
    said = (
        f"{title}: the least of {group.size} principal components has {least} of the variance of "
        "the largest."
    )
    return Figure(picture(WIDTH, HEIGHT, said, *drawn), title, legend)


def _counts(group: GroupReport) -> Scale:
    return Scale(0.0, float(group.size), LEFT, WIDTH - RIGHT)


def _logarithmic(group: GroupReport, lines: Sequence[Points]) -> Frame | None:
    """Axes over counts that hold what is positive of these lines; None where nothing is."""
    values = [value for points in lines for _, value in points if value > 0]
    if not values:
        return None
    high = max(values)
    low = max(min(values), DYNAMIC_RANGE * high)
    low, high = (low / 1.5, high * 1.5) if low > high / 10 else (low, high)
    return Frame(_counts(group), Scale(low, high, HEIGHT - BOTTOM, TOP, 10))


def _visible(frame: Frame, points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y >= frame.y.low]


def _axes(
    frame: Frame,
    label: str,
    ticks: Sequence[float] | None = None,
    says: Sequence[str] | None = None,
    below: str = "channels kept",
) -> list[Markup]:
    if ticks is None:
        ticks = frame.y.ticks(5)
        if len(ticks) < 2:  # less than a power of ten
            ticks = [frame.y.low, frame.y.high]
    return [
        frame.vertical(label, ticks, says),
        frame.horizontal(below, frame.x.ticks(5)),
    ]


def _chosen(frame: Frame, kept: int) -> list[Markup]:
    return [line(frame.x(kept), frame.y.start, frame.x(kept), frame.y.stop, "chosen")]
