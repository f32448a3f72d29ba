"""What attributes leave implied, spelt out: the sizes of a Split and the paddings of a Conv."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

SPLIT_SIZES_ARE_AN_INPUT = 13
"""First opset in which the sizes of a Split are an input, not an attribute."""


def explicit_split(node: gs.Node, opset: int) -> None:
    """Spell out the sizes of a Split that were implied by its number of outputs."""
    given = "split" in node.attrs or (len(node.inputs) > 1 and not node.inputs[1].is_empty())
    if given or any(y.shape is None for y in node.outputs):
        return
    axis = node.attrs.get("axis", 0)
    sizes = [y.shape[axis] for y in node.outputs]
    if not all(isinstance(size, int) for size in sizes):
        return
    node.attrs.pop("num_outputs", None)
    if opset < SPLIT_SIZES_ARE_AN_INPUT:
        node.attrs["split"] = sizes
    else:
        while len(node.inputs) > 1:  # an empty optional input
            node.inputs.pop()
        node.inputs.append(gs.Constant(f"{node.name}.split", np.array(sizes, np.int64)))


def explicit_pads(node: gs.Node) -> None:
    """Replace auto_pad where the paddings do not depend on an unknown input size."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode == "NOTSET" or node.op != "Conv" or not isinstance(node.inputs[1], gs.Constant):
        return
    kernel = node.inputs[1].values.shape[2:]
    rank = len(kernel)
    strides = node.attrs.get("strides", [1] * rank)
    dilations = node.attrs.get("dilations", [1] * rank)
    begin, end = [0] * rank, [0] * rank
    if mode.startswith("SAME"):
        sizes = (node.inputs[0].shape or [None] * (rank + 2))[2:]
        for axis, size in enumerate(sizes):
            if strides[axis] > 1 and not isinstance(size, int):
                return
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            steps = 1 if strides[axis] == 1 else -(-size // strides[axis])
            covered = (steps - 1) * strides[axis] + reach
            total = max(covered - (1 if strides[axis] == 1 else size), 0)
            small, large = total // 2, total - total // 2
            begin[axis], end[axis] = (small, large) if mode == "SAME_UPPER" else (large, small)
    node.attrs.pop("auto_pad")
    node.attrs["pads"] = [*begin, *end]
