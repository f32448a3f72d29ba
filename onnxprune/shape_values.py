"""What a shape tensor holds, element by element: known numbers and extents of other tensors.

Exporters write ``x.view(x.size(0), -1)`` as Shape, Gather, Unsqueeze, Concat, Reshape. Followed
element by element, the new shape is "the extent of axis 0 of x, then -1", which Reshape can be
told directly: 0 copies an extent. Without its reader Shape, the chain no longer holds x in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

DEPTH_LIMIT = 32
"""Nodes a chain of shape arithmetic may have before it is given up."""


@dataclass(frozen=True)
class Extent:
    """The unknown extent of one axis of a tensor."""

    tensor: gs.Tensor
    axis: int

    def equals(self, tensor: gs.Tensor, axis: int) -> bool:
        """Whether the extent is certainly that of this axis."""
        if self.tensor is tensor and self.axis == axis:
            return True
        own, other = self.tensor.shape[self.axis], _extent(tensor, axis)
        return isinstance(own, str) and bool(own) and own == other


Element = int | Extent
Elements = list[Element]


def resolve_shapes(graph: gs.Graph) -> None:
    """Replace shape arithmetic by constants, as far as extents are known numbers.

    Reshape also takes 0 for an extent it copies, and -1 for one that is unknown.
    """
    outputs = {id(tensor) for tensor in graph.outputs}
    for node in list(graph.nodes):
        if node.op in _READERS and id(node.outputs[0]) not in outputs:
            _write_numbers(node)
        elif node.op == "Reshape" and len(node.inputs) > 1:
            _plain_reshape(node)


def _write_numbers(node: gs.Node) -> None:
    """Make the output of shape arithmetic a constant if all its elements are numbers."""
    y = node.outputs[0]
    if y.shape is None or len(y.shape) > 1 or y.dtype != np.int64:
        return
    elements = elements_of(y)
    if elements is None or any(isinstance(element, Extent) for element in elements):
        return
    shape = [len(elements)] if len(y.shape) else []
    y.to_constant(np.array(elements, np.int64).reshape(shape))
    node.outputs.clear()


def _plain_reshape(node: gs.Node) -> None:
    """Write the new shape of a Reshape as a constant where its elements are understood."""
    x, shape = node.inputs[0], node.inputs[1]
    if isinstance(shape, gs.Constant) or node.attrs.get("allowzero", 0):
        return
    elements = elements_of(shape)
    if elements is None:
        return
    values: list[int] = []
    for axis, element in enumerate(elements):
        if isinstance(element, int):
            values.append(element)
        elif element.equals(x, axis):
            values.append(0)
        elif -1 in elements or -1 in values:
            return
        else:
            values.append(-1)
    node.inputs[1] = gs.Constant(f"{shape.name}/{node.outputs[0].name}", np.array(values, np.int64))


def elements_of(tensor: gs.Tensor, depth: int = 0) -> Elements | None:
    """The elements of an integer vector or scalar; None where they are not understood."""
    if isinstance(tensor, gs.Constant):
        if len(tensor.shape) > 1 or tensor.dtype not in (np.int32, np.int64):
            return None
        return [int(value) for value in tensor.values.reshape(-1)]
    if len(tensor.inputs) != 1 or depth > DEPTH_LIMIT:
        return None
    node = tensor.inputs[0]
    reader = _READERS.get(node.op)
    return reader(node, depth + 1) if reader is not None else None


def _shape(node: gs.Node, _: int) -> Elements | None:
    tensor = node.inputs[0]
    if tensor.shape is None:
        return None
    axes = range(len(tensor.shape))[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
    extents = [_extent(tensor, axis) for axis in axes]
    return [
        extent if isinstance(extent, int) else Extent(tensor, axis)
        for axis, extent in zip(axes, extents, strict=True)
    ]


def _gather(node: gs.Node, depth: int) -> Elements | None:
    source, picked = elements_of(node.inputs[0], depth), elements_of(node.inputs[1], depth)
    if source is None or picked is None or node.attrs.get("axis", 0) != 0:
        return None
    places = [p for p in picked if isinstance(p, int) and -len(source) <= p < len(source)]
    return [source[p] for p in places] if len(places) == len(picked) else None


def _slice(node: gs.Node, depth: int) -> Elements | None:
    source = elements_of(node.inputs[0], depth)
    if source is None:
        return None
    if "starts" in node.attrs:
        bounds = [node.attrs["starts"][0], node.attrs["ends"][0]]
    else:
        given = [elements_of(tensor, depth) for tensor in node.inputs[1:]]
        bounds = [piece[0] if piece else None for piece in given]
        bounds = bounds[:2] + bounds[3:]  # the axis can only be 0
    if not all(isinstance(bound, int) for bound in bounds):
        return None
    return source[slice(*bounds)]


def _concat(node: gs.Node, depth: int) -> Elements | None:
    pieces = [elements_of(tensor, depth) for tensor in node.inputs]
    joined: Elements = []
    for piece in pieces:
        if piece is None:
            return None
        joined += piece
    return joined


def _same(node: gs.Node, depth: int) -> Elements | None:
    """Squeeze, Unsqueeze and Identity change the rank at most."""
    return elements_of(node.inputs[0], depth)


def _extent(tensor: gs.Tensor, axis: int) -> int | str | None:
    known = tensor.shape is not None and axis < len(tensor.shape)
    extent: int | str | None = tensor.shape[axis] if known else None
    return extent


_READERS: dict[str, Callable[[gs.Node, int], Elements | None]] = {
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _same,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _same,
    "Unsqueeze": _same,
}
