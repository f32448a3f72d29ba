"""Targets: what the pruned model may cost, or how far it may move, as the user says it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

COSTS = {
    "macs": "fraction of the multiply-accumulates kept, or a number such as 20M",
    "params": "fraction of the parameters kept, or a number such as 500k",
    "size": "fraction of the file's bytes kept, or a size such as 10MB or 2MiB",
    "latency": "fraction of the measured time of a run kept, or a time such as 5ms",
    "ratio": "fraction of the channels removed",
}
"""Targets on what the model costs; they decide how much is pruned."""

DAMAGES = {
    "error": "relative error of the outputs that is accepted, such as 0.05",
    "drop": "how much the metric of --eval or --labels may fall, such as 1%, which is 0.01",
}
"""Targets on what pruning does to the model; alone, as much is pruned as they allow."""

KINDS = COSTS | DAMAGES

SAFE_ERROR = 0.1
"""Without a target: relative error of the outputs, on samples not fitted on, that is accepted."""

_COUNT = {"": "1", "k": "1e3", "m": "1e6", "g": "1e9"}
_BYTES = {"b": "1", "kb": "1e3", "mb": "1e6", "gb": "1e9"}
_BINARY = {"kib": "1024", "mib": "1048576", "gib": "1073741824"}
_TIME = {"us": "1e-3", "ms": "1", "s": "1e3"}
_SHARE = {"": "1", "%": "1e-2"}
_UNITS: Mapping[str, Mapping[str, str]] = {
    "macs": _COUNT,
    "params": _COUNT,
    "size": _COUNT | _BYTES | _BINARY,
    "latency": {"": "1"} | _TIME,
    "ratio": {"": "1"},
    "error": _SHARE,
    "drop": _SHARE,
}
"""Kind -> unit, in small letters -> what it is worth."""

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class Target:
    """One bound on the pruned model.

    Attributes:
        kind: one of ``KINDS``.
        value: for a cost a fraction in (0, 1], or an absolute number above 1; for "ratio" a
            fraction in [0, 1); for "error" and "drop" the bound itself.
        unit: "ms" for a latency that is a time; empty for everything else.
    """

    kind: str
    value: float
    unit: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown target '{self.kind}' ({meanings()})")
        if self.unit and (self.kind, self.unit) != ("latency", "ms"):
            raise ValueError(f"target {self.kind} has no unit '{self.unit}'; only latency has ms")
        if self.kind == "ratio" and not 0 <= self.value < 1:
            raise ValueError(
                "ratio is the fraction of the channels removed, at least 0 and below 1, "
                f"not {self.value:g}"
            )
        least_is_fine = self.kind in ("ratio", "drop") and self.value == 0
        if not least_is_fine and not (self.value > 0 and math.isfinite(self.value)):
            raise ValueError(f"target {self.kind} must be a number above 0, not {self.value:g}")
        if self.kind == "latency" and self.value > 1 and not self.unit:
            raise ValueError(
                f"latency={self.value:g} is no fraction of the time; a time has a unit: "
                f"latency={self.value:g}ms"
            )

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``macs=0.5``, ``params=200k``, ``size=10MB``, ``latency=5ms`` or ``drop=1%``.

        Raises:
            ValueError: the text is not a target.
        """
        match = re.fullmatch(rf"\s*(\w+)\s*=\s*({_NUMBER})\s*([A-Za-z%]*)\s*", text)
        kind, number, unit = match.groups() if match else ("", "0", "")
        if match and kind not in KINDS:
            raise ValueError(f"unknown target '{kind}' ({meanings()})")
        if not match or unit.lower() not in _UNITS[kind]:
            raise ValueError(
                f"'{text}' is not a target; write for example macs=0.5, params=500k, size=10MB, "
                "latency=5ms, ratio=0.3, error=0.05 or drop=1%"
            )
        try:
            value = float(Decimal(number) * Decimal(_UNITS[kind][unit.lower()]))
        except ArithmeticError:  # more digits or a larger exponent than a Decimal has
            value = math.inf
        return cls(kind, value, "ms" if unit.lower() in _TIME else "")

    @property
    def is_cost(self) -> bool:
        """Whether it bounds what the model costs, not what pruning does to its outputs."""
        return self.kind in COSTS

    def limit(self, full: float) -> float:
        """The largest value allowed, where ``full`` is that of the unpruned model."""
        if self.kind == "ratio":
            return (1.0 - self.value) * full
        fraction = self.is_cost and self.value <= 1 and not self.unit
        return self.value * full if fraction else self.value

    def __str__(self) -> str:
        if self.kind == "drop" and self.value < 1:
            return f"drop={float(Decimal(repr(self.value)) * 100):.12g}%"
        if self.kind == "size" and self.value > 1:
            return f"size={spelled_bytes(self.value)}"
        return f"{self.kind}={self.value:.12g}{self.unit}"


def spelled(kind: str, value: float) -> str:
    """An amount of a cost with its unit: bytes for a size, milliseconds for a latency."""
    if kind == "size":
        return spelled_bytes(float(round(value)))
    return f"{value:.3f} ms" if kind == "latency" else f"{value:,.0f}"


def spelled_bytes(count: float) -> str:
    """A number of bytes with a decimal unit."""
    worth, unit = next(
        ((w, u) for w, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= w), (1.0, "B")
    )
    return f"{count / worth:.12g}{unit}"


def meanings() -> str:
    """All kinds of targets and what they mean, in one line."""
    return "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
