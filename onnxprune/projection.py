"""Which rows of a projection become the entries of the queries or keys of every head.

A factor of a product of two activations is followed back, through nodes that only move entries, to
the linear map that makes it. Then the numbers of the map's outputs are sent the same way forward.
What arrives at (head, place) is the row that makes it: packed projections, heads in the batch and
transpositions need no treatment of their own. Rows can be mixed with each other only if all the
product reads of them is what arrives there, and nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.concrete import Shape
from onnxprune.linear_map import Contraction, LinearMap, added_constant, results
from onnxprune.movement import NotMovedError, moved, moved_input
from onnxprune.network import Network

OPEN_EXTENTS = (3, 5, 7, 11, 13, 17)
"""What stands for extents of a projection's output that are not known: small, and no divisors."""
MIXABLE_OPS = ("Conv", "Gemm", "MatMul")
LONGEST_WAY = 16
"""Nodes between a projection and the product it is made for."""


@dataclass(frozen=True)
class Projection:
    """A linear map that makes one factor of a product, and which of its rows make what.

    Attributes:
        linear_map: the map.
        rows: the row that makes every place of every head, shape (heads, places).
        heads: the head at every index of the factor's leading axes.
        made: the map's output, after what is added to it.
        added: a constant that is added behind the map's own bias, shape (outputs,).
    """

    linear_map: LinearMap
    rows: IndexArray
    heads: IndexArray
    made: gs.Tensor
    added: Vector

    def mixed(
        self, weight: Array, bias: Array, mixes: dict[int, Matrix], keep: dict[int, IndexArray]
    ) -> tuple[Array, Array]:
        """The weight and bias of the map with the kept places of heads made by mixes of all.

        Args:
            weight: in the map's layout, with all outputs and any number of inputs.
            bias: the map's own, shape (outputs,).
            mixes: head -> T, shape (kept places, places): kept queries are T q.
            keep: head -> its kept places.

        Returns:
            The same, with the rows of places that are not kept as they were.
        """
        new_weight, new_bias = weight.copy(), bias.astype(np.float64)
        axis = self.linear_map.out_axis
        before, after = np.moveaxis(weight, axis, 0), np.moveaxis(new_weight, axis, 0)
        whole = bias + self.added
        for head, mix in mixes.items():
            own = self.rows[head]
            kept = own[keep[head]]
            after[kept] = np.tensordot(mix, before[own].astype(np.float64), axes=1)
            new_bias[kept] = mix @ whole[own] - self.added[kept]
        return new_weight, new_bias.astype(bias.dtype)


@dataclass(frozen=True)
class _Way:
    """The way from a projection to a factor.

    Attributes:
        linear_map: the projection.
        added: the constant of an Add right behind it, along its outputs; zeros without one.
        tensors: every tensor on the way; the first is what is made, the last the factor.
        nodes: the nodes between them.
    """

    linear_map: LinearMap
    added: Vector
    tensors: list[gs.Tensor]
    nodes: list[gs.Node]


class Projections:
    """Finds what makes the factors of a network's products.

    Args:
        network: the network.
        sizes: shapes of tensors for a small batch, where that is open.
    """

    def __init__(self, network: Network, sizes: Mapping[str, Shape]) -> None:
        self._outside = results(network.graph)
        self._made_by = {id(m.y): m for m in network.consumers.values() if _is_mixable(m)}
        self._sizes = sizes

    def of(
        self, contraction: Contraction, place: int, heads: int | None = None
    ) -> Projection | None:
        """The projection that makes one factor of a product, if its rows can be mixed.

        Args:
            contraction: the product.
            place: which factor, 0 or 1.
            heads: how many heads the axis that is summed over holds in a row; None where it
                holds one.
        """
        way = self._way_back(contraction.node.inputs[place])
        if way is None or way.tensors[0].shape is None:
            return None
        made, along = way.tensors[0], way.linear_map.y_axis
        shape = _small_shape(made, self._sizes)
        try:
            numbers, others = _sent(way, contraction.node, shape)
        except NotMovedError:
            return None
        axis = (contraction.a_axis, contraction.b_axis)[place]
        table = _table(_origins(numbers, shape, along), axis, heads)
        if table is None:
            return None
        rows, leading = table
        if any(np.isin(_origins(other, shape, along).rows, rows).any() for other in others):
            return None
        return Projection(way.linear_map, rows, leading, made, way.added)

    def _way_back(self, factor: gs.Tensor) -> _Way | None:
        """Follow a factor to the map that makes it; None where something else does."""
        tensors: list[gs.Tensor] = [factor]
        nodes: list[gs.Node] = []
        while len(nodes) < LONGEST_WAY and id(tensors[0]) not in self._outside:
            tensor = tensors[0]
            if id(tensor) in self._made_by:
                linear_map = self._made_by[id(tensor)]
                return _Way(linear_map, np.zeros(linear_map.outputs), tensors, nodes)
            if len(tensor.inputs) != 1:
                return None
            node = tensor.inputs[0]
            source = moved_input(node)
            if node.op == "Add" and id(source) in self._made_by:
                linear_map = self._made_by[id(source)]
                added = _along_outputs(linear_map, added_constant(source, self._outside))
                return None if added is None else _Way(linear_map, added, tensors, nodes)
            tensors.insert(0, source)
            nodes.insert(0, node)
        return None


def _is_mixable(linear_map: LinearMap) -> bool:
    """Whether the rows of a map are read once and all see the same inputs."""
    alone = not linear_map.twins and len(linear_map.weight.outputs) == 1
    return alone and linear_map.node.op in MIXABLE_OPS and linear_map.groups == 1


def _along_outputs(
    linear_map: LinearMap, found: tuple[gs.Node, gs.Constant] | None
) -> Vector | None:
    """What an Add adds to every output of a map, shape (outputs,); None if that is not all."""
    if found is None or linear_map.y.shape is None:
        return None
    _, constant = found
    values, rank = constant.values, len(linear_map.y.shape)
    if values.ndim > rank:
        return None
    values = values.reshape((1,) * (rank - values.ndim) + values.shape)
    if values.size != values.shape[linear_map.y_axis]:
        return None
    return np.broadcast_to(values.reshape(-1), (linear_map.outputs,)).astype(np.float64)


def _sent(way: _Way, product: gs.Node, shape: list[int]) -> tuple[Array, list[Array]]:
    """The numbers of what is made, as they arrive at the factor, and as all others read them."""
    values = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    others: list[Array] = []
    for tensor, node, target in zip(way.tensors, way.nodes, way.tensors[1:], strict=False):
        others += _read_besides(node, tensor, values)
        parts = dict(zip(map(id, node.outputs), moved(node, tensor, values), strict=True))
        values = parts.pop(id(target))
        others += parts.values()
    return values, others + _read_besides(product, way.tensors[-1], values)


def _read_besides(node: gs.Node, tensor: gs.Tensor, values: Array) -> list[Array]:
    """What all others read of a tensor than one input of a node."""
    again = sum(given is tensor for given in node.inputs) - 1
    others = [_read_by(other, tensor, values) for other in tensor.outputs if other is not node]
    return others + [values] * again


def _read_by(node: gs.Node, tensor: gs.Tensor, values: Array) -> Array:
    """What another node reads of a tensor; all of it, unless it takes a part."""
    if node.op in ("Gather", "Slice", "Split"):
        try:
            parts = moved(node, tensor, values)
        except NotMovedError:
            return values
        return np.concatenate([part.reshape(-1) for part in parts])
    return values


def _small_shape(tensor: gs.Tensor, sizes: Mapping[str, Shape]) -> list[int]:
    """The tensor's shape, with small primes for what is not known."""
    small: dict[object, int] = {}
    known = sizes.get(tensor.name, tensor.shape)
    return [
        extent
        if isinstance(extent, int)
        else small.setdefault(
            extent or ("axis", axis), OPEN_EXTENTS[len(small) % len(OPEN_EXTENTS)]
        )
        for axis, extent in enumerate(known if len(known) == len(tensor.shape) else tensor.shape)
    ]


@dataclass(frozen=True)
class _Origins:
    """Where entries come from: the row that makes them, and the place it makes them at."""

    rows: IndexArray
    sites: IndexArray


def _origins(numbers: Array, shape: list[int], axis: int) -> _Origins:
    """What numbers say that count the entries of this shape, with the rows on this axis."""
    inner = int(np.prod(shape[axis + 1 :]))
    rows = numbers // inner % shape[axis]
    return _Origins(rows, numbers - rows * inner)


def _table(
    origins: _Origins, axis: int, in_a_row: int | None
) -> tuple[IndexArray, IndexArray] | None:
    """Rows by (head, place), and the head at every index of the leading axes.

    None if places of one position are made at several, or by other rows at other positions.
    """
    rank = origins.rows.ndim
    position = rank - 2 if axis == rank - 1 else rank - 1
    rows, sites = (
        np.moveaxis(values, (position, axis), (0, -1)) for values in (origins.rows, origins.sites)
    )
    if (sites != sites[..., :1]).any() or (rows != rows[:1]).any():
        return None
    leading, rows = rows.shape[1:-1], rows[0].reshape(-1, rows.shape[-1])
    if in_a_row is not None:
        first, heads = np.zeros(1, np.int64), np.zeros(len(rows), np.int64)
    else:
        _, first, heads = np.unique(rows[:, 0], return_index=True, return_inverse=True)
        heads = np.argsort(np.argsort(first))[heads.reshape(-1)]  # numbered as they come
    table = rows[np.sort(first)]
    if (rows != table[heads]).any():
        return None
    if in_a_row is not None:
        table = table.reshape(in_a_row, -1)
    return (table, heads.reshape(leading)) if np.unique(table).size == table.size else None
