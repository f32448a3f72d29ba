"""bfloat16 models as float32 ones, for where onnxruntime computes no bfloat16.

Its CPU provider has next to no kernel for it. Every bfloat16 number is a float32 one, so statistics
and comparisons may as well be taken in float32; what is written stays bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

TYPE_ATTRIBUTES = frozenset({"dtype", "output_dtype", "stash_type", "to"})
"""Attributes that hold an element type."""


def widened(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy with float32 in the place of bfloat16; None if there is none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    changed = [_widen(graph) for graph in _graphs(copy.graph)]
    changed += [_widen_nodes(function.node) for function in copy.functions]
    return copy if any(changed) else None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _graphs(inner)


def _widen(graph: onnx.GraphProto) -> bool:
    changed = _widen_nodes(graph.node)
    for tensor in graph.initializer:
        changed |= _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.BFLOAT16:
            kind.elem_type, changed = TensorProto.FLOAT, True
    return changed


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> bool:
    changed = False
    for attribute in (a for node in nodes for a in node.attribute):
        named = attribute.name in TYPE_ATTRIBUTES and attribute.type == AttributeProto.INT
        if named and attribute.i == TensorProto.BFLOAT16:
            attribute.i, changed = TensorProto.FLOAT, True
        for tensor in (attribute.t, *attribute.tensors):
            changed |= _widen_tensor(tensor)
    return changed


def _widen_tensor(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != TensorProto.BFLOAT16:
        return False
    wide = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return True
