"""The two factors of a product of activations: where their moments are taken, head by head.

A factor has a head for every index of the axis that holds them. Exporters merge that axis into the
batch; then moments are taken where the projection ends that makes the factor, and heads are apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray
from onnxprune.gram import Gram
from onnxprune.linear_map import Contraction, FeatureSpec, HeadsInARow
from onnxprune.mac_terms import ATTENTION_OPS
from onnxprune.projection import Projection, Projections

HEADS = 1
"""The axis of the heads, where (batch, heads, positions, width) has them apart."""
APART = 4


@dataclass(frozen=True)
class Factor:
    """One factor of a product of activations.

    Attributes:
        spec: the features its moments are over.
        heads: for every pair of heads that are multiplied, which head of this factor it has.
        parts: which Gram of the spec belongs to a head, shape (heads,).
        projection: what makes it, if its rows can be mixed.
    """

    spec: FeatureSpec
    heads: IndexArray
    parts: IndexArray
    projection: Projection | None

    def moments(self, grams: Mapping[FeatureSpec, Gram]) -> Array:
        """E[x x^T] for every pair of heads, the constant last: shape (pairs, places + 1, ...)."""
        moments: Array = grams[self.spec].mean()[self.parts[self.heads]]
        return moments


@dataclass(frozen=True)
class _Side:
    """A factor before its heads are paired with those of the other one.

    Attributes:
        spec, parts, projection: as of ``Factor``.
        leading: the head at every index of the leading axes.
    """

    spec: FeatureSpec
    parts: IndexArray
    projection: Projection | None
    leading: IndexArray


def factors_of(projections: Projections, contraction: Contraction) -> tuple[Factor, Factor]:
    """The factors of a product, and how their heads are paired."""
    sides = [_side(projections, contraction, place) for place in (0, 1)]
    heads = _pairs(contraction, sides)
    if heads is None:  # one is known by heads, the other only as a whole
        sides = [_whole(contraction, place) for place in (0, 1)]
        heads = _pairs(contraction, sides)
        assert heads is not None
    left, right = (
        Factor(side.spec, own, side.parts, side.projection)
        for side, own in zip(sides, heads, strict=True)
    )
    return left, right


def _side(projections: Projections, contraction: Contraction, place: int) -> _Side:
    """One factor, with its projection if that one's heads are told apart."""
    seen = _by_axis(contraction, place)
    projection = projections.of(contraction, place, _in_a_row(contraction, place))
    if projection is None:
        return seen
    if _agree(seen, projection):
        return replace(seen, projection=projection)
    return _where_made(projection) or seen


def _agree(seen: _Side, projection: Projection) -> bool:
    """Whether a factor's own heads are those of its projection, in their order."""
    if seen.parts.size != len(projection.rows):
        return False
    return bool((np.broadcast_to(seen.leading, projection.heads.shape) == projection.heads).all())


def _where_made(projection: Projection) -> _Side | None:
    """The heads of a projection, whose rows have to lie one after another."""
    made, rows = projection.made, projection.rows
    linear_map, width = projection.linear_map, rows.shape[1]
    first = rows[:, 0]
    in_order = (rows == first[:, None] + np.arange(width)).all()
    if not in_order or (first % width).any() or linear_map.outputs % width:
        return None
    parts = linear_map.outputs // width
    spec = FeatureSpec(made.name, len(made.shape), linear_map.y_axis, parts=parts)
    return _Side(spec, first // width, projection, projection.heads)


def _in_a_row(contraction: Contraction, place: int) -> int | None:
    if isinstance(contraction, HeadsInARow):
        return (contraction.heads, contraction.others)[place]
    return None


def _by_axis(contraction: Contraction, place: int) -> _Side:
    """A factor by the heads it has itself."""
    tensor = contraction.node.inputs[place]
    axis = (contraction.a_axis, contraction.b_axis)[place]
    count = _in_a_row(contraction, place)
    if count is not None:
        spec = FeatureSpec(tensor.name, len(tensor.shape), axis, parts=count)
        return _Side(spec, np.arange(count), None, np.zeros((1,), np.int64))
    heads = _heads_apart(tensor)
    if heads is None:
        return _whole(contraction, place)
    spec = FeatureSpec(tensor.name, len(tensor.shape), axis, parts=heads, apart=HEADS)
    return _Side(spec, np.arange(heads), None, np.arange(heads)[None])


def _whole(contraction: Contraction, place: int) -> _Side:
    """A factor with all of its heads taken as one."""
    tensor = contraction.node.inputs[place]
    axis = (contraction.a_axis, contraction.b_axis)[place]
    spec = FeatureSpec(tensor.name, len(tensor.shape), axis)
    return _Side(spec, np.zeros(1, np.int64), None, np.zeros((1,), np.int64))


def _heads_apart(tensor: gs.Tensor) -> int | None:
    """How many heads lie on an axis of their own."""
    if len(tensor.shape) != APART or not isinstance(tensor.shape[HEADS], int):
        return None
    return int(tensor.shape[HEADS])


def _pairs(contraction: Contraction, sides: list[_Side]) -> tuple[IndexArray, IndexArray] | None:
    """Which heads of the factors are multiplied: an index into each, shape (pairs,)."""
    many, few = (side.parts.size for side in sides)
    if contraction.node.op in ATTENTION_OPS:
        return None if many % few else (np.arange(many), np.repeat(np.arange(few), many // few))
    try:
        left, right = np.broadcast_arrays(*(side.leading for side in sides))
    except ValueError:
        return None
    pairs = np.unique(np.stack([left.reshape(-1), right.reshape(-1)]), axis=1)
    return pairs[0], pairs[1]
