"""Packed projections taken apart before they are divided into heads.

Exporters reshape the outputs of a packed projection, 3 * H * D of them, to (3, H, D), transpose,
and only then pick queries, keys and values. While all three lie in one tensor, its axes are theirs
in common: no place of the queries could go without the same of the values. Split first, each of
them runs through the same nodes alone, with 1 in the place of 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.explicit import LISTS_ARE_INPUTS
from onnxprune.names import fresh
from onnxprune.shape_values import numbers_of, symbol

MOST = 8
"""Parts that a projection may be packed of."""


@dataclass(frozen=True)
class _Chain:
    """What lies between a packed tensor and its parts.

    Attributes:
        nodes: the Reshape that sets the parts apart, and those that move axes after it.
        axis: the axis of the Reshape's output with an index for every part.
        place: that axis behind the last node.
        parts: how many there are.
    """

    nodes: tuple[gs.Node, ...]
    axis: int
    place: int
    parts: int

    @property
    def last(self) -> gs.Tensor:
        """The tensor that the parts are picked from."""
        return self.nodes[-1].outputs[0]


def unpack(graph: gs.Graph, opset: int) -> None:
    """Split what is reshaped into parts that are read one by one; graph is sorted."""
    outputs = {id(tensor) for tensor in graph.outputs}
    names = set(graph.tensors())
    for node in list(graph.nodes):
        chain = _chain(node, outputs) if node.op == "Reshape" else None
        if chain is not None and _is_picked_from(chain, graph):
            _take_apart(graph, chain, opset, names)
    graph.cleanup()


def _is_picked_from(chain: _Chain, graph: gs.Graph) -> bool:
    """Whether every reader takes single parts, and none is inside an If or Loop."""
    nodes = {id(node) for node in graph.nodes}
    readers = [*chain.nodes, *chain.last.outputs]
    inside = any(id(reader) not in nodes for reader in readers)
    return not inside and all(_picked(r, chain) is not None for r in chain.last.outputs)


def _chain(node: gs.Node, outputs: set[int]) -> _Chain | None:
    """The nodes from a Reshape on that sets parts of the last axis apart; None if it does not."""
    axis = _parts_axis(node)
    if axis is None:
        return None
    place, nodes = axis, [node]
    while True:
        y = nodes[-1].outputs[0]
        if id(y) in outputs or y.shape is None:
            return None
        after = y.outputs[0] if len(y.outputs) == 1 else None
        moved = None if after is None else _moved(after, place)
        if after is None or moved is None:
            return _Chain(tuple(nodes), axis, place, node.outputs[0].shape[axis])
        place, nodes = moved, [*nodes, after]


def _parts_axis(node: gs.Node) -> int | None:
    """The first of the axes that a Reshape divides the last axis of x into, if no other changes."""
    x, y = node.inputs[0], node.outputs[0]
    shape = numbers_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x.shape is None or y.shape is None or shape is None:
        return None
    if not 0 < len(x.shape) < len(y.shape) or len(shape) != len(y.shape):
        return None
    axis = len(x.shape) - 1
    divided = y.shape[axis:]
    unlike = sum(symbol(x, a) != symbol(y, a) for a in range(axis))  # one may have two names
    known = isinstance(x.shape[axis], int) and all(isinstance(extent, int) for extent in divided)
    if not known or unlike > 1 or math.prod(divided) != x.shape[axis]:
        return None
    return axis if 1 < divided[0] <= MOST and shape[axis] == divided[0] else None


def _moved(node: gs.Node, place: int) -> int | None:
    """Where an axis is behind a node that only moves axes; None for other nodes."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        return None
    if node.op == "Transpose":
        perm = list(node.attrs.get("perm", range(len(x.shape) - 1, -1, -1)))
        return perm.index(place)
    axes = _axes(node, max(len(x.shape), len(y.shape)))
    if node.op == "Unsqueeze" and axes is not None:
        return [a for a in range(len(y.shape)) if a not in axes][place]
    if node.op == "Squeeze" and axes is not None and place not in axes:
        return place - sum(a < place for a in axes)
    return None


def _axes(node: gs.Node, rank: int) -> list[int] | None:
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1:
        given = numbers_of(node.inputs[1])
    return None if given is None else [int(axis) % rank for axis in given]


def _picked(node: gs.Node, chain: _Chain) -> list[int] | None:
    """Which part each output of a node holds, where it holds one; None if it takes others."""
    rank = len(chain.last.shape)
    if node.op == "Gather" and node.inputs[0] is chain.last:
        index = numbers_of(node.inputs[1])
        single = isinstance(node.inputs[1], gs.Constant) and node.inputs[1].values.ndim == 0
        along = node.attrs.get("axis", 0) % rank == chain.place
        return [index[0] % chain.parts] if along and single and index else None
    if node.op == "Split" and node.attrs.get("axis", 0) % rank == chain.place:
        one = all(y.shape is not None and y.shape[chain.place] == 1 for y in node.outputs)
        return list(range(chain.parts)) if one and len(node.outputs) == chain.parts else None
    if node.op == "Slice" and len(node.inputs) in (4, 5):
        bounds = [numbers_of(tensor) for tensor in node.inputs[1:]]
        start, end, axes, *steps = (b[0] if b and len(b) == 1 else None for b in bounds)
        if start is None or end is None or axes is None or steps not in ([], [1]):
            return None
        taken = range(chain.parts)[start:end]
        return list(taken) if axes % rank == chain.place and len(taken) == 1 else None
    return None


def _take_apart(graph: gs.Graph, chain: _Chain, opset: int, names: set[str]) -> None:
    """Give every part a copy of the chain, and its readers that copy's result."""
    packed = chain.nodes[0].inputs[0]
    base, width = packed.name, packed.shape[-1] // chain.parts
    pieces = [
        gs.Variable(fresh(f"{base}/{part}", names), packed.dtype, [*packed.shape[:-1], width])
        for part in range(chain.parts)
    ]
    new = [_split(packed, pieces, opset, fresh(f"{base}/parts", names))]
    readers = list(chain.last.outputs)
    results = {}
    for part in sorted({p for reader in readers for p in _picked(reader, chain) or []}):
        nodes = list(_copies(chain, pieces[part], part, names))
        new += nodes
        results[part] = nodes[-1].outputs[0]
    place = min(graph.nodes.index(reader) for reader in readers)
    for reader in readers:
        for part, y in zip(_picked(reader, chain) or [], list(reader.outputs), strict=True):
            new += _read(reader, results[part], y, chain.place, graph)
        reader.outputs.clear()
        reader.inputs.clear()
    graph.nodes[place:place] = new


def _split(packed: gs.Tensor, pieces: list[gs.Variable], opset: int, name: str) -> gs.Node:
    sizes = [piece.shape[-1] for piece in pieces]
    attributes: dict[str, object] = {"axis": len(packed.shape) - 1}
    inputs = [packed]
    if opset < LISTS_ARE_INPUTS:
        attributes["split"] = sizes
    else:
        inputs.append(gs.Constant(f"{name}/sizes", np.array(sizes, np.int64)))
    return gs.Node("Split", name, attributes, inputs, pieces)


def _copies(chain: _Chain, piece: gs.Tensor, part: int, names: set[str]) -> Iterator[gs.Node]:
    """The nodes of the chain for one part."""
    x = piece
    for position, node in enumerate(chain.nodes):
        y = gs.Variable(fresh(f"{node.outputs[0].name}/{part}", names), piece.dtype)
        inputs = [x, *node.inputs[1:]]
        if position == 0:
            shape = numbers_of(node.inputs[1]) or []
            shape[chain.axis] = 1
            inputs[1] = gs.Constant(f"{y.name}/shape", np.array(shape, np.int64))
        yield gs.Node(node.op, f"{node.name}/{part}", dict(node.attrs), inputs, [y])
        x = y


def _read(
    reader: gs.Node, result: gs.Tensor, y: gs.Tensor, place: int, graph: gs.Graph
) -> Iterator[gs.Node]:
    """What makes of a part with an axis of one index what its reader made of the packed tensor."""
    if reader.op == "Gather":
        first = gs.Constant(f"{y.name}/index", np.array(0, np.int64))
        yield gs.Node("Gather", y.name, {"axis": place}, [result, first], [y])
    elif any(y is tensor for tensor in graph.outputs):
        yield gs.Node("Identity", y.name, {}, [result], [y])
    else:
        for node in list(y.outputs):
            node.inputs = [result if tensor is y else tensor for tensor in node.inputs]
