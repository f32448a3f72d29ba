"""The canonical form of LSTM, GRU and RNN: biases and outputs spelt out, zero states left out.

Exporters compute initial states of zeros from the batch size; a state that is not given is zeros
as well, and then the shape arithmetic has no reader.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.names import fresh
from onnxprune.recurrent_map import BIAS, WEIGHT

INITIAL_STATES = (5, 6)
DEPTH_LIMIT = 64
"""Nodes that may lie between an initial state and its zeros."""
MOVING_OPS = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose outputs hold entries of their first input."""


def explicit_recurrent(node: gs.Node, names: set[str]) -> None:
    """Give a recurrent node a bias and an output sequence, and take away states of zeros."""
    for place in INITIAL_STATES:
        if place < len(node.inputs) and _is_zero(node.inputs[place]):
            node.inputs[place] = gs.Variable.empty()
    while node.inputs[-1].is_empty():
        node.inputs.pop()
    if len(node.inputs) == BIAS:
        node.inputs.append(gs.Variable.empty())
    weight = node.inputs[WEIGHT]
    if node.inputs[BIAS].is_empty() and isinstance(weight, gs.Constant) and len(weight.shape) == 3:
        directions, rows, _ = weight.shape
        zeros = np.zeros((directions, 2 * rows), weight.dtype)
        node.inputs[BIAS] = gs.Constant(fresh(f"{node.name}.bias", names), zeros)
    if node.outputs[0].is_empty():
        node.outputs[0] = gs.Variable(fresh(f"{node.name}.sequence", names), weight.dtype)


def _is_zero(tensor: gs.Tensor, depth: int = 0) -> bool:
    """Whether a tensor certainly holds nothing but zeros."""
    if isinstance(tensor, gs.Constant):
        return not tensor.values.any()
    if not tensor.inputs or depth > DEPTH_LIMIT:
        return False
    maker = tensor.inputs[0]
    if maker.op == "ConstantOfShape":
        value = maker.attrs.get("value")
        return value is None or not value.values.any()
    if maker.op == "Concat":
        return all(_is_zero(piece, depth + 1) for piece in maker.inputs)
    return maker.op in MOVING_OPS and _is_zero(maker.inputs[0], depth + 1)
