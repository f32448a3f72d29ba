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

DEPTH_LIMIT = 64
"""Nodes a chain of shape arithmetic may have before it is given up."""
LENGTH_LIMIT = 64
"""Elements a vector may have to be taken for a shape."""
WHOLE = frozenset({np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)})
"""Types of shapes and of the masks that choose between them."""
INT64 = range(-(1 << 63), 1 << 63)
"""Numbers that a shape can hold; runtimes wrap around where arithmetic leaves them."""

Symbol = int | str | tuple[int, int]
"""An extent: a number, a name, or the tensor and axis it is the unknown extent of."""


def symbol(tensor: gs.Tensor, axis: int) -> Symbol:
    """What stands for an extent; equal symbols are equal extents."""
    extent = _extent(tensor, axis)
    return (id(tensor), axis) if extent is None else extent


@dataclass(frozen=True, eq=False)
class Extent:
    """The unknown extent of one axis of a tensor."""

    tensor: gs.Tensor
    axis: int

    def equals(self, tensor: gs.Tensor, axis: int) -> bool:
        """Whether the extent is certainly that of this axis."""
        return symbol(self.tensor, self.axis) == symbol(tensor, axis)


Element = int | Extent | None
"""None is a number that depends on more than one extent, or on data."""
Elements = list[Element]


def elements_of(tensor: gs.Tensor, depth: int = 0) -> Elements | None:
    """The elements of an integer vector or scalar; None where not even their number is known."""
    if isinstance(tensor, gs.Constant):
        if len(tensor.shape) > 1 or tensor.dtype not in WHOLE or tensor.values.size > LENGTH_LIMIT:
            return None
        return [int(value) for value in tensor.values.reshape(-1)]
    elements = None
    if len(tensor.inputs) == 1 and depth < DEPTH_LIMIT and tensor.inputs[0].op in _READERS:
        elements = _READERS[tensor.inputs[0].op](tensor.inputs[0], depth + 1)
    if elements is None:
        return _opaque(tensor)
    return [None if isinstance(e, int) and e not in INT64 else e for e in elements]


def _opaque(tensor: gs.Tensor) -> Elements | None:
    """As many unknown numbers as a vector is known to have."""
    if tensor.shape is None or len(tensor.shape) > 1:
        return None
    length = tensor.shape[0] if len(tensor.shape) else 1
    return [None] * length if isinstance(length, int) and length <= LENGTH_LIMIT else None


def numbers_of(tensor: gs.Tensor, depth: int = 0) -> list[int] | None:
    """The elements, if all of them are known numbers."""
    elements = elements_of(tensor, depth)
    numbers = [element for element in elements or [] if isinstance(element, int)]
    return None if elements is None or len(numbers) != len(elements) else numbers


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


def _extent(tensor: gs.Tensor, axis: int) -> int | str | None:
    known = tensor.shape is not None and axis < len(tensor.shape)
    extent: int | str | None = tensor.shape[axis] if known else None
    return extent


def _picked(node: gs.Node, depth: int) -> Elements | None:
    """Gather and Slice."""
    source = elements_of(node.inputs[0], depth)
    places = None if source is None else picked_places(node, len(source), depth)
    return None if source is None or places is None else [source[place] for place in places]


def picked_places(node: gs.Node, length: int, depth: int = 0) -> list[int] | None:
    """Which places of a vector a Gather or a Slice picks; None where that is not known."""
    if node.op == "Slice":
        bounds = _bounds(node, depth)
        return None if bounds is None else list(range(length)[bounds])
    places = numbers_of(node.inputs[1], depth)
    if places is None or node.attrs.get("axis", 0) not in (0, -1):
        return None
    inside = all(-length <= place < length for place in places)
    return [place % length for place in places] if inside else None


def _bounds(node: gs.Node, depth: int) -> slice | None:
    """Start, end and step of a Slice of a vector."""
    if "starts" in node.attrs:
        return slice(node.attrs["starts"][0], node.attrs["ends"][0])
    given = [numbers_of(tensor, depth) for tensor in node.inputs[1:] if not tensor.is_empty()]
    bounds = [piece[0] for piece in given if piece]
    # The third of them is the axis, which can only be 0.
    return slice(*bounds[:2], *bounds[3:]) if len(bounds) == len(given) else None


def _concat(node: gs.Node, depth: int) -> Elements | None:
    joined: Elements = []
    for tensor in node.inputs:
        piece = elements_of(tensor, depth)
        if piece is None:
            return None
        joined += piece
    return joined


def _same(node: gs.Node, depth: int) -> Elements | None:
    """Squeeze, Unsqueeze and Identity change the rank at most."""
    return elements_of(node.inputs[0], depth)


def _cast(node: gs.Node, depth: int) -> Elements | None:
    x, y = node.inputs[0], node.outputs[0]
    exact = x.dtype in WHOLE and y.dtype in (np.int32, np.int64)
    return elements_of(x, depth) if exact else None


def _reshape(node: gs.Node, depth: int) -> Elements | None:
    """A vector or scalar stays what it is when it becomes a vector again."""
    shape = numbers_of(node.inputs[1], depth) if len(node.inputs) > 1 else None
    return elements_of(node.inputs[0], depth) if shape is not None and len(shape) < 2 else None


def _aligned(node: gs.Node, depth: int) -> list[Elements] | None:
    """The elements of all inputs, a single one repeated; None where they do not fit."""
    rows = [elements_of(tensor, depth) for tensor in node.inputs]
    known = [row for row in rows if row is not None]
    length = max((len(row) for row in known), default=0)
    if len(known) < len(rows) or any(len(row) not in (1, length) for row in known):
        return None
    return [row * length if len(row) == 1 else row for row in known]


def _pairwise(work: Callable[[Element, Element], Element]) -> Callable[..., Elements | None]:
    """The reader of an operator with two inputs that works on pairs of elements."""

    def reader(node: gs.Node, depth: int) -> Elements | None:
        rows = _aligned(node, depth)
        if rows is None or len(rows) != 2:
            return None
        return [work(a, b) for a, b in zip(*rows, strict=True)]

    return reader


def _add(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if a == 0 else a if b == 0 else None


def _sub(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a if b == 0 else None


def _mul(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return 0 if 0 in (a, b) else b if a == 1 else a if b == 1 else None


def _div(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int) and b != 0:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero
    return a if b == 1 else None


def _equal(a: Element, b: Element) -> Element:
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    for extent, other in ((a, b), (b, a)):
        if isinstance(extent, Extent) and isinstance(other, int) and other < 0:
            return 0
    return None


def _extreme(choose: Callable[[list[int]], int]) -> Callable[..., Elements | None]:
    """The reader of Max or Min, of any number of inputs."""

    def reader(node: gs.Node, depth: int) -> Elements | None:
        rows = _aligned(node, depth)
        if rows is None:
            return None
        columns = list(zip(*rows, strict=True))
        numbers = [[e for e in column if isinstance(e, int)] for column in columns]
        return [
            choose(known) if len(known) == len(column) else None
            for known, column in zip(numbers, columns, strict=True)
        ]

    return reader


def _where(node: gs.Node, depth: int) -> Elements | None:
    rows = _aligned(node, depth)
    if rows is None:
        return None
    return [
        (a if mask else b) if isinstance(mask, int) else None
        for mask, a, b in zip(*rows, strict=True)
    ]


def _constant_of_shape(node: gs.Node, depth: int) -> Elements | None:
    value, length = node.attrs.get("value"), numbers_of(node.inputs[0], depth)
    if value is None or value.dtype not in WHOLE or length is None or len(length) > 1:
        return None
    count = sum(length or [1])
    return [int(value.values.reshape(-1)[0])] * count if count <= LENGTH_LIMIT else None


def _expand(node: gs.Node, depth: int) -> Elements | None:
    source, length = elements_of(node.inputs[0], depth), numbers_of(node.inputs[1], depth)
    if source is None or length is None or len(length) != 1 or length[0] > LENGTH_LIMIT:
        return None
    return source * length[0] if len(source) == 1 else source


def _multiplied(elements: Elements) -> Element:
    product: Element = 1
    for element in elements:
        product = _mul(product, element)
    return product


def _product(node: gs.Node, depth: int) -> Elements | None:
    source = elements_of(node.inputs[0], depth)
    return None if source is None else [_multiplied(source)]


def _size(node: gs.Node, depth: int) -> Elements | None:
    extents = _shape(node, depth)
    return None if extents is None else [_multiplied(extents)]


_READERS: dict[str, Callable[[gs.Node, int], Elements | None]] = {
    "Add": _pairwise(_add),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _pairwise(_div),
    "Equal": _pairwise(_equal),
    "Expand": _expand,
    "Gather": _picked,
    "Identity": _same,
    "Max": _extreme(max),
    "Min": _extreme(min),
    "Mul": _pairwise(_mul),
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _picked,
    "Squeeze": _same,
    "Sub": _pairwise(_sub),
    "Unsqueeze": _same,
    "Where": _where,
}
"""What each operator does to the elements of vectors and scalars."""


def reads_shapes(node: gs.Node) -> bool:
    """Whether a node may be part of shape arithmetic."""
    return node.op in _READERS
