"""How many values shape inference would carry along, beside the shapes."""

from __future__ import annotations

import math

import onnx

LARGEST = 1 << 20
"""Values of one tensor; shapes and indices into them are far fewer."""
EXTENTS = 64
"""More than any tensor has."""
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def is_bounded(model: onnx.ModelProto) -> bool:
    """Whether inference of shapes may propagate data: not if Concats double it time and again.

    Inside functions onnx takes every vector for data, whatever its extent.
    """
    if model.functions:
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


def _size(tensor: onnx.TensorProto) -> int:
    """How many values of a tensor are carried along: those of vectors of integers."""
    vector = tensor.data_type in INTEGERS and len(tensor.dims) < 2
    return math.prod(tensor.dims) if vector else 0
