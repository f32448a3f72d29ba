"""Shape arithmetic written as constants, as far as its elements are known numbers.

What cannot be a constant as a whole becomes one Concat for each reader, in which every known number
is a constant of its own: a fix-up can then write there how much of a cut axis survives, and the
rest is computed as before.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.explicit import explicit_squeeze
from onnxprune.names import fresh
from onnxprune.shape_values import (
    WHOLE,
    Element,
    Elements,
    Extent,
    elements_of,
    numbers_of,
    reads_shapes,
)

SIZES: dict[str, int] = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "Reshape": 1,
    "Resize": 3,
    "Tile": 1,
}
"""Inputs of operators that hold extents or numbers of repeats."""


def resolve_shapes(graph: gs.Graph) -> bool:
    """Replace shape arithmetic by constants, as far as extents are known numbers.

    Reshape also takes 0 for an extent it copies and -1 for one that is unknown, Expand 1 for one
    it copies.

    Returns:
        Whether a new shape was written: more may be known behind it.
    """
    outputs = {id(tensor) for tensor in graph.outputs}
    written = False
    for node in list(graph.nodes):
        if node.op == "Reshape" and len(node.inputs) > 1:
            written |= _plain_reshape(node)
        elif node.op == "Expand":
            written |= _plain_expand(node)
        elif node.op == "Squeeze":
            written |= explicit_squeeze(node, graph.opset)
        if reads_shapes(node) and id(node.outputs[0]) not in outputs:
            _write_numbers(node)
    return written


def _write_numbers(node: gs.Node) -> None:
    """Make the output of shape arithmetic a constant if all its elements are numbers."""
    y = node.outputs[0]
    if y.shape is None or len(y.shape) > 1 or y.dtype not in WHOLE:
        return
    numbers = numbers_of(y)
    if numbers is None:
        return
    shape = [len(numbers)] if len(y.shape) else []
    y.to_constant(np.array(numbers, y.dtype).reshape(shape))
    node.outputs.clear()


def _plain_reshape(node: gs.Node) -> bool:
    """Write the new shape of a Reshape as a constant where its elements are understood."""
    x, shape = node.inputs[0], node.inputs[1]
    elements = elements_of(shape)
    if elements is None or (node.attrs.get("allowzero", 0) and 0 in elements):
        return False
    node.attrs.pop("allowzero", None)  # some exporters always set it; it is about extents of 0
    if isinstance(shape, gs.Constant):
        return _fill_inferred(node, shape)
    values: list[int] = []
    for axis, element in enumerate(elements):
        if isinstance(element, int):
            values.append(element)
        elif element is not None and element.equals(x, axis):
            values.append(0)
        else:
            values.append(-1)
    if values.count(-1) > 1:
        return False
    _write(node, 1, values)
    return True


def _fill_inferred(node: gs.Node, shape: gs.Constant) -> bool:
    """Write the number where an extent is left to be inferred and is known."""
    extents = node.outputs[0].shape
    places = np.flatnonzero(shape.values == -1)
    if extents is None or len(extents) != shape.values.size or not places.size:
        return False
    extent = extents[places[0]]
    copied = (shape.values == 0).any()  # the batch, which else would be what is inferred
    if not isinstance(extent, int) or extent < 1 or not copied:
        return False
    values = shape.values.tolist()
    values[places[0]] = extent
    _write(node, 1, values)
    return True


def _plain_expand(node: gs.Node) -> bool:
    """Write the shape of an Expand as a constant where its elements are understood."""
    x, shape = node.inputs[0], node.inputs[1]
    elements = elements_of(shape)
    if isinstance(shape, gs.Constant) or elements is None or x.shape is None:
        return False
    added = len(elements) - len(x.shape)
    values = []
    for place, element in enumerate(elements):
        copied = isinstance(element, Extent) and place >= added
        if isinstance(element, int):
            values.append(element)
        elif copied and isinstance(element, Extent) and element.equals(x, place - added):
            values.append(1)
        else:
            return False
    _write(node, 1, values)
    return True


def _write(node: gs.Node, position: int, values: list[int]) -> None:
    name = f"{node.inputs[position].name}/{node.outputs[0].name}"
    node.inputs[position] = gs.Constant(name, np.array(values, np.int64))


def spell_out_sizes(graph: gs.Graph) -> None:
    """Give every reader of a shape with some known numbers a Concat that holds them as constants.

    The graph keeps its order.
    """
    names = set(graph.tensors())
    _detach_outputs(graph, names)
    for node in list(graph.nodes):
        position = SIZES.get(node.op, len(node.inputs))
        if position >= len(node.inputs) or node.inputs[position].is_empty():
            continue
        sizes = node.inputs[position]
        elements = elements_of(sizes) or []
        known = any(isinstance(element, int) for element in elements)
        if known and not isinstance(sizes, gs.Constant) and not _is_spelt_out(sizes):
            _spell_out(graph, node, position, elements, names)


def _detach_outputs(graph: gs.Graph, names: set[str]) -> None:
    """Let nobody read a number that is also an output of the graph: an Identity makes that."""
    for y in graph.outputs:
        if not y.outputs or not y.inputs or not reads_shapes(y.inputs[0]) or y.dtype not in WHOLE:
            continue
        inner = gs.Variable(fresh(f"{y.name}/inner", names), y.dtype, y.shape)
        for reader in list(y.outputs):
            for position, tensor in enumerate(reader.inputs):
                if tensor is y:
                    reader.inputs[position] = inner
        maker = y.inputs[0]
        maker.outputs[list(map(id, maker.outputs)).index(id(y))] = inner
        identity = gs.Node("Identity", inner.name, {}, [inner], [y])
        graph.nodes.insert(graph.nodes.index(maker) + 1, identity)


def _is_spelt_out(sizes: gs.Tensor) -> bool:
    """Whether this is a Concat for one reader whose known elements are constants."""
    if len(sizes.outputs) != 1 or not sizes.inputs or sizes.inputs[0].op != "Concat":
        return False
    return all(
        isinstance(piece, gs.Constant)
        or not any(isinstance(element, int) for element in elements_of(piece) or [])
        for piece in sizes.inputs[0].inputs
    )


def _spell_out(
    graph: gs.Graph, node: gs.Node, position: int, elements: Elements, names: set[str]
) -> None:
    sizes = node.inputs[position]
    base = f"{sizes.name}/{node.outputs[0].name}"
    new: list[gs.Node] = []
    pieces: list[gs.Tensor] = []
    places = range(len(elements))
    for known, run in groupby(places, lambda place: isinstance(elements[place], int)):
        run_places = list(run)
        numbers = [elements[place] if known else place for place in run_places]
        constant = gs.Constant(fresh(f"{base}/{run_places[0]}", names), np.array(numbers, np.int64))
        if known:
            pieces.append(constant)
            continue
        piece = gs.Variable(fresh(f"{base}/{run_places[0]}_", names), np.int64, [len(run_places)])
        new.append(gs.Node("Gather", piece.name, {"axis": 0}, [sizes, constant], [piece]))
        pieces.append(piece)
    joined = gs.Variable(fresh(base, names), np.int64, [len(elements)])
    new.append(gs.Node("Concat", joined.name, {"axis": 0}, pieces, [joined]))
    node.inputs[position] = joined
    place = graph.nodes.index(node)
    graph.nodes[place:place] = new


def element(sizes: gs.Tensor, place: int) -> Element:
    """One element of a shape."""
    elements = elements_of(sizes)
    return elements[place] if elements is not None and place < len(elements) else None


def write_element(sizes: gs.Tensor, place: int, value: int) -> None:
    """Change a known number of a constant shape or of one that is spelt out."""
    if isinstance(sizes, gs.Constant):
        values = sizes.values.copy()
        values[place] = value
        sizes.values = values
        return
    for piece in sizes.inputs[0].inputs:
        length = len(elements_of(piece) or [])
        if place < length:
            if isinstance(piece, gs.Constant):
                write_element(piece, place, value)
            return
        place -= length
