"""How many values shape inference would carry along, beside the shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

LARGEST = 1 << 20
"""Values of one tensor; shapes and indices into them are far fewer."""
EXTENTS = 64
"""More than any tensor has."""
INPUTS = {"ConstantOfShape": 1, "Expand": 2, "Tile": 2, "Range": 3}
"""Operators that make much of little, and how many inputs say how much."""
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def is_bounded(model: onnx.ModelProto) -> bool:
    """Whether inference of shapes may propagate data.

    onnx takes vectors for data, whatever their extents: not those inside functions, nor those that
    a few numbers blow up or that Concats double time and again.
    """
    if model.functions or any(_longest(model)):
        return False
    sizes = {t.name: size for t in model.graph.initializer if (size := _size(t))}
    for node in model.graph.node:
        if node.op_type == "Shape":
            held = EXTENTS
        elif node.op_type == "Constant":
            held = sum(_size(a.t) for a in node.attribute if a.HasField("t"))
        elif all(name in sizes for name in node.input if name):
            given = [sizes[name] for name in node.input if name]
            held = sum(given) if node.op_type == "Concat" else max(given, default=0)
        else:
            continue
        if held > LARGEST:
            return False
        sizes |= dict.fromkeys(node.output, held)
    return True


def _longest(model: onnx.ModelProto) -> Iterator[bool]:
    """Of every node that makes a tensor of a constant shape, whether it has a large extent."""
    shapes = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            shapes |= dict(
                zip(node.output, (a.t for a in node.attribute if a.HasField("t")), strict=False)
            )
        for name in node.input[: INPUTS.get(node.op_type, 0)]:
            if name in shapes and _size(shapes[name]):
                yield int(onnx.numpy_helper.to_array(shapes[name]).max()) > LARGEST


def _size(tensor: onnx.TensorProto) -> int:
    """How many values of a tensor are carried along: those of vectors of integers."""
    vector = tensor.data_type in INTEGERS and len(tensor.dims) < 2
    return math.prod(tensor.dims) if vector else 0
