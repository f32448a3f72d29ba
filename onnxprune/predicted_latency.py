"""A first guess of how long a pruned model runs; what counts is measured afterwards."""

from __future__ import annotations

from onnxprune.arrays import Array, Vector
from onnxprune.budget import Costs
from onnxprune.cost import CostModel


def guessed_latency(cost: CostModel, sizes: Array, milliseconds: float) -> Costs:
    """Milliseconds as if time were shared out like multiply-accumulates.

    Args:
        cost: costs of the canonical model.
        sizes: full counts of all groups, shape (groups,).
        milliseconds: measured on the original.
    """
    per_mac = milliseconds / (float(cost.macs(sizes)) or 1.0)

    def of(counts: Array) -> Vector:
        return cost.macs(counts) * per_mac

    return of
