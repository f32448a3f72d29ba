"""Targets on costs as bounds on what is predicted of every choice of counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxprune.allocation import Bound, Costs
from onnxprune.arrays import Array, IndexArray, Vector
from onnxprune.cost import CostModel
from onnxprune.target import Target

SLACK = 1e-9
"""A hair: counts are whole numbers and fractions are not."""


@dataclass(frozen=True)
class FileSizes:
    """Bytes of two files.

    Attributes:
        original: of the model as it was read, which fractions refer to.
        canonical: of the canonical model, which is what is written when nothing is cut.
    """

    original: int
    canonical: int


def bounds_of(
    targets: Sequence[Target],
    cost: CostModel,
    sizes: IndexArray,
    channels: Costs,
    original_params: float,
    *,
    files: FileSizes | None = None,
    latency: Callable[[], Costs] | None = None,
) -> list[Bound]:
    """The targets as bounds on predicted costs, one for each.

    Args:
        targets: what the user asked for, costs only.
        cost: costs of the canonical model.
        sizes: full counts of all groups, then sections; shape (groups + sections,).
        channels: counts of that order -> kept channels of what may be cut; what a ratio is of.
        original_params: parameters of the file as it was read, which fractions refer to.
        files: sizes of the files; only a target on the size needs them.
        latency: makes what predicts milliseconds; called only for a target on the latency.
    """

    def priced(kind: str) -> tuple[Costs, float]:
        if kind == "macs":
            return cost.macs, float(cost.macs(sizes))
        if kind == "params":
            return cost.params, original_params
        if kind == "size" and files is not None:
            return _file_bytes(cost, sizes, files), float(files.original)
        if kind == "latency" and latency is not None:
            predicted = latency()
            return predicted, float(predicted(sizes))
        if kind == "ratio":
            return channels, float(channels(sizes))
        raise ValueError(f"nothing predicts the cost '{kind}' here")

    bounds = []
    for target in targets:
        costs, full = priced(target.kind)
        limit = target.limit(full) * (1 + SLACK)
        steps = target.kind == "latency"
        bounds.append(Bound(target.kind, costs, limit, full, multilinear=not steps))
    return bounds


def _file_bytes(cost: CostModel, sizes: IndexArray, files: FileSizes) -> Costs:
    """Bytes of parameters, and the rest of the file, which hardly changes."""
    rest = files.canonical - float(cost.bytes(sizes))

    def of(counts: Array) -> Vector:
        return cost.bytes(counts) + rest

    return of
