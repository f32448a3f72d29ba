"""Targets: what the pruned model may cost, as the user says it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.allocation import Bound, Costs
from onnxprune.arrays import IndexArray
from onnxprune.cost import CostModel

KINDS = {
    "macs": "fraction of the multiply-accumulates kept, or a number such as 20M",
    "params": "fraction of the parameters kept, or a number such as 500k",
    "ratio": "fraction of the channels removed",
}
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Target:
    """One bound on the pruned model.

    Attributes:
        kind: "macs", "params" or "ratio".
        value: a fraction in (0, 1], or an absolute number above 1; for "ratio" a fraction in
            [0, 1).
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
            raise ValueError(f"unknown target '{self.kind}' ({known})")
        if self.kind == "ratio" and not 0 <= self.value < 1:
            raise ValueError(
                "ratio is the fraction of the channels removed, at least 0 and below 1, "
                f"not {self.value:g}"
            )
        if self.kind != "ratio" and not (self.value > 0 and math.isfinite(self.value)):
            raise ValueError(f"target {self.kind} must be a number above 0, not {self.value:g}")

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``macs=0.5``, ``params=200k`` or ``ratio=0.3``.

        Raises:
            ValueError: the text is not a target.
        """
        match = re.fullmatch(
            r"\s*(\w+)\s*=\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([kKmMgG]?)\s*", text
        )
        if match is None:
            raise ValueError(
                f"'{text}' is not a target; write for example macs=0.5, params=500k or ratio=0.3"
            )
        kind, number, unit = match.groups()
        return cls(kind, float(number) * _UNITS[unit.lower()])

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"


def bounds_of(
    targets: Sequence[Target],
    cost: CostModel,
    sizes: IndexArray,
    selected: IndexArray,
    original_params: float,
) -> list[Bound]:
    """The targets as bounds on costs.

    Args:
        targets: what the user asked for.
        cost: costs of the canonical model.
        sizes: full counts of all groups, shape (groups,).
        selected: which groups may be cut; their channels are what a ratio is of.
        original_params: parameters of the file as it was read, which fractions refer to.
    """
    table: dict[str, tuple[Costs, float]] = {
        "macs": (cost.macs, float(cost.macs(sizes))),
        "params": (cost.params, original_params),
        "ratio": (lambda counts: counts[..., selected].sum(axis=-1), float(sizes[selected].sum())),
    }
    bounds = []
    for target in targets:
        costs, full = table[target.kind]
        kept = 1.0 - target.value if target.kind == "ratio" else target.value
        limit = kept * full if kept <= 1.0 else kept
        # A hair of slack: counts are whole numbers and fractions are not.
        name = "kept channels (1 - ratio)" if target.kind == "ratio" else target.kind
        bounds.append(Bound(name, costs, limit * (1 + 1e-9), full))
    return bounds
