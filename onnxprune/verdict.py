"""What was asked of a pruned model, beside what was measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.target import Target, spelled

TOLERANCE = 0.03
"""Relative to what was asked: a model that misses a target by more is not written."""

UNUSED = {"latency": 0.05, "error": 0.1, "drop": 0.5}
"""Kinds of targets that are only known once measured -> the part of what was asked that may be
left unused before another model is tried."""

ROUNDING = 1e-8


@dataclass(frozen=True)
class Check:
    """One target as measured on the pruned model.

    Attributes:
        target: the target.
        limit: the largest value allowed.
        reached: the value measured.
        full: the value of the original; what fractions are of. 0 for damage.
    """

    target: Target
    limit: float
    reached: float
    full: float

    @property
    def excess(self) -> float:
        """By how much of what was asked the limit is exceeded; below 0 if it holds."""
        return (self.reached - self.limit) / (self.limit or 1.0)

    @property
    def holds(self) -> bool:
        """Whether the limit is kept, but for rounding."""
        return self.excess <= ROUNDING

    @property
    def misses(self) -> bool:
        """Whether it is exceeded by more than the tolerance."""
        return self.excess > TOLERANCE

    @property
    def wasteful(self) -> bool:
        """Whether much more could be pruned, or much less would do."""
        return self.excess < -UNUSED.get(self.target.kind, float("inf"))

    @property
    def asked_text(self) -> str:
        """The limit as it was asked for: a fraction, or a number with its unit."""
        return f"at most {self._text(self.limit)}"

    @property
    def reached_text(self) -> str:
        """The value measured, in the same words."""
        return self._text(self.reached)

    def _text(self, value: float) -> str:
        kind = self.target.kind
        if kind == "ratio":  # what is kept, of what could be cut
            return f"{value / (self.full or 1.0):.1%} of the channels"
        if not self.target.is_cost:
            return f"{value:.4g}"
        if self.target.value <= 1 and not self.target.unit:
            return f"{value / (self.full or 1.0):.1%}"
        return spelled(kind, value)


def table(checks: Sequence[Check]) -> list[str]:
    """Lines of text: target, asked, reached."""
    rows = [("target", "asked", "reached")]
    rows += [(str(check.target), check.asked_text, check.reached_text) for check in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2])])
        for row in rows
    ]
