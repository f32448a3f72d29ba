"""Operators that onnx's shape inference knows nothing of, shown to it as ones that it knows."""

from __future__ import annotations

import onnx
from onnx import helper

SHAPE_OF_FIRST_INPUT = frozenset({"GroupNormalization"})
"""Standard operators without inference whose output is shaped like their first input."""


def with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model, for shape inference only, or the model itself if it needs none."""
    if not any(_is_unknown(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if _is_unknown(node):
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1]))
    return copy


def _is_unknown(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in SHAPE_OF_FIRST_INPUT
