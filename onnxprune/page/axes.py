"""Axes of the page's charts: from values to places, and the marks along them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from onnxprune.page.svg import element, line, text, written
from onnxprune.page.wording import small

FEW_POWERS = 2
"""Logarithmic axes over fewer powers of ten have marks between them."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Scale:
    """Places of values along one axis.

    Attributes:
        low: the value at ``start``; above 0 on a logarithmic scale.
        high: the value at ``stop``; above ``low``.
        start: pixels.
        stop: pixels.
        base: of a logarithmic scale; None for an even one.
    """

    low: float
    high: float
    start: float
    stop: float
    base: int | None = None

    def __call__(self, value: float) -> float:
        """The place of a value; of one outside, that of the nearer end."""
        value = min(max(value, self.low), self.high)
        low, high = self._even(self.low), self._even(self.high)
        return self.start + (self._even(value) - low) / (high - low) * (self.stop - self.start)

    def _even(self, value: float) -> float:
        return value if self.base is None else math.log(value)

    def ticks(self, count: int) -> list[float]:
        """Round values inside, about so many."""
        if self.base is None:
            return even_ticks(self.low, self.high, count)
        first, last = (math.log(end, self.base) for end in (self.low, self.high))
        powers = range(math.floor(first), math.ceil(last) + 1)
        step = max(1, math.ceil((last - first) / count))
        between = (1, 2, 5) if self.base == 10 and last - first < FEW_POWERS else (1,)
        marks = [m * float(self.base) ** power for power in powers[::step] for m in between]
        low, high = self.low * (1 - ROUNDING), self.high * (1 + ROUNDING)
        return [mark for mark in marks if low <= mark <= high]


def even_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside, at most about so many."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{at * step:.10g}") for at in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """Two axes and where they lie.

    Attributes:
        x: from left to right.
        y: from bottom to top, so that ``y.start`` lies below ``y.stop``.
    """

    x: Scale
    y: Scale

    def horizontal(self, label: str, ticks: Sequence[float]) -> Markup:
        """The axis below, with its label and these values."""
        base = self.y.start
        marks = [
            text(self.x(value), base + 15, f"{value:g}", text_anchor="middle") for value in ticks
        ]
        middle = (self.x.start + self.x.stop) / 2
        return element(
            "g",
            line(self.x.start, base, self.x.stop, base, "axis"),
            *marks,
            text(middle, base + 32, label, "axis-label", text_anchor="middle"),
        )

    def vertical(
        self, label: str, ticks: Sequence[float], says: Sequence[str] | None = None
    ) -> Markup:
        """The axis on the left, with its label above it, words and lines at these values."""
        words = says or [small(value) for value in ticks]
        marks = [
            element(
                "g",
                line(self.x.start, self.y(value), self.x.stop, self.y(value), "grid"),
                text(self.x.start - 6, self.y(value) + 3.5, word, text_anchor="end"),
            )
            for value, word in zip(ticks, words, strict=True)
        ]
        return element("g", *marks, text(2, self.y.stop - 10, label, "axis-label"))

    def path(self, values: Sequence[tuple[float, float]], classes: str) -> Markup:
        """A line through values, of those in one column of pixels the highest and the lowest."""
        points = thinned([(self.x(x), self.y(y)) for x, y in values])
        places = " ".join(f"{written(x)},{written(y)}" for x, y in points)
        return element("polyline", points=places, class_=f"line {classes}")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points from left to right without those that would not show."""
    columns: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        columns.setdefault(round(point[0]), []).append(point)
    kept = []
    for column in columns.values():
        ends = {min(column, key=lambda p: p[1]), max(column, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept
