"""Multiply-accumulates of one node, as a sum of products of counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune.counts import AxisCounter, Product, Sum, expand
from onnxprune.network import Network
from onnxprune.recurrent_map import RECURRENCE, RECURRENT_OPS

ATTENTION_OPS = ("Attention", "MultiHeadAttention")
LINEAR_OPS = (
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "FusedConv",
    "Gemm",
    "MatMul",
    *ATTENTION_OPS,
    *RECURRENT_OPS,
)
"""Operators whose multiply-accumulates are counted."""
POSITIONS = -2
"""The axis of positions in queries, keys and values, whether heads are apart or in a row."""


@dataclass(frozen=True)
class MacTerms:
    """Counts the multiply-accumulates of nodes.

    Attributes:
        network: what the nodes belong to.
        shapes: shapes of its activations, as far as they are known.
        counter: what is left of its axes.
    """

    network: Network
    shapes: Mapping[str, tuple[int, ...]]
    counter: AxisCounter

    def of(self, node: gs.Node) -> list[Product]:
        """Every weight is used once per output position; nothing where no position is known."""
        x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
        if node.op in ATTENTION_OPS:
            return self._attention(node)
        if node.op in RECURRENT_OPS:
            steps, recurrence = self._extents(x, 2), node.inputs[RECURRENCE]
            return [*self._weighted(weight, steps), *self._weighted(recurrence, steps)]
        if not isinstance(weight, gs.Constant):
            return self._product(x, y)
        if node.op == "ConvTranspose":  # every position of x is spread over y
            return self._weighted(weight, self._extents(x, 1))
        linear_map = self.network.producers.get(node.name)
        y_axis = linear_map.y_axis if linear_map else (-1 if node.op == "MatMul" else 1)
        return self._weighted(weight, self._extents(y, y_axis))

    def _weighted(self, weight: gs.Constant, positions: list[Sum]) -> list[Product]:
        axes = [self.counter.count(weight, axis) for axis in range(len(weight.shape))]
        return expand([*axes, *positions])

    def _product(self, x: gs.Tensor, y: gs.Tensor) -> list[Product]:
        """A product of two activations: every output element sums over x's last axis."""
        if x.name not in self.shapes or y.name not in self.shapes:
            return []
        rank = len(self.shapes[x.name])
        return expand([*self._extents(x, *range(rank - 1)), *self._extents(y)])

    def _attention(self, node: gs.Node) -> list[Product]:
        """Scores of all pairs of positions, and values summed by them."""
        query, key, y = node.inputs[0], node.inputs[1], node.outputs[0]
        if any(tensor.name not in self.shapes for tensor in (query, key, y)):
            return []
        pairs = self._extent(key, len(self.shapes[key.name]) + POSITIONS)
        return [*expand([*self._extents(query), pairs]), *expand([*self._extents(y), pairs])]

    def _extents(self, tensor: gs.Tensor, *left_out: int) -> list[Sum]:
        """Counts along the axes of an activation, where its shape is known."""
        rank = len(self.shapes.get(tensor.name, ()))
        skipped = {axis % rank for axis in left_out} if rank else set()
        return [self._extent(tensor, axis) for axis in range(rank) if axis not in skipped]

    def _extent(self, tensor: gs.Tensor, axis: int) -> Sum:
        return self.counter.positions(tensor, axis, self.shapes[tensor.name][axis])
