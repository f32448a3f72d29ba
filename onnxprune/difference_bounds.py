"""How far two models may be apart, and whether they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.comparison import OutputDistance
from onnxprune.errors import MetricError
from onnxprune.paired import PairedMetric


@dataclass(frozen=True)
class Measure:
    """Something that can be bounded.

    Attributes:
        name: what it is.
        of: its value for an output; None for an output that has none.
    """

    name: str
    of: Callable[[OutputDistance], float | None]


MEASURES: Mapping[str, Measure] = {
    "max-error": Measure("relative error", lambda output: output.relative_error),
    "max-abs-error": Measure("largest difference", lambda output: output.max_abs_error),
    "max-divergence": Measure("divergence", lambda output: output.divergence),
    "min-cosine": Measure("cosine", lambda output: output.cosine),
    "min-agreement": Measure("top-1 agreement", lambda output: output.agreement),
}
"""Bounds on outputs; the first word of their names says on which side of the bound is right."""
DROP = "max-drop"
"""The bound on how much the metric may fall."""
ROUNDING = 1e-12
"""A difference of two means misses the bound that it reaches by so much."""


@dataclass(frozen=True)
class Bound:
    """One bound beside what was measured.

    Attributes:
        bound: its name, which is the flag's.
        limit: what is allowed.
        what: what was measured.
        found: its value.
    """

    bound: str
    limit: float
    what: str
    found: float

    @property
    def holds(self) -> bool:
        """Whether it is kept; what is not a number keeps none."""
        if self.bound.startswith("min"):
            return self.found >= self.limit - ROUNDING
        return self.found <= self.limit + ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return vars(self) | {"holds": self.holds}

    def __str__(self) -> str:
        side = "at least" if self.bound.startswith("min") else "at most"
        return f"{self.what} is {self.found:.6g}, --{self.bound} allows {side} {self.limit:g}"


def checked(
    limits: Mapping[str, float], outputs: Sequence[OutputDistance], metric: PairedMetric | None
) -> list[Bound]:
    """Every bound on every output that has what it is on.

    Args:
        limits: name of a bound -> what is allowed.
        outputs: how far the outputs are apart.
        metric: the user's metric of both models.

    Raises:
        MetricError: a bound is on what no output has.
    """
    bounds = []
    for name, limit in limits.items():
        if name == DROP:
            bounds += [] if metric is None else [_drop(limit, metric)]
            continue
        measure = MEASURES[name]
        values = [(output, measure.of(output)) for output in outputs]
        known = [(output, value) for output, value in values if value is not None]
        if not known:
            raise MetricError(
                f"--{name} is on outputs that are rows of class scores, and none of "
                f"{', '.join(repr(output.name) for output in outputs)} is; leave it away, or bound "
                "--max-error"
            )
        bounds += [
            Bound(name, limit, f"output {output.name}: {measure.name}", value)
            for output, value in known
        ]
    return bounds


def _drop(limit: float, metric: PairedMetric) -> Bound:
    return Bound(DROP, limit, f"{metric.name}: the drop", -metric.difference)
