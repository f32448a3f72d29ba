"""What nodes leave implied, spelt out: sizes of a Split, paddings of a Conv, axes of a Squeeze."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

LISTS_ARE_INPUTS = 13
"""First opset in which sizes of a Split and axes of a Squeeze are inputs, not attributes."""


def explicit_split(node: gs.Node, opset: int) -> None:
    """Spell out the sizes of a Split that were implied by its number of outputs."""
    if _is_given(node, "split") or any(y.shape is None for y in node.outputs):
        return
    axis = node.attrs.get("axis", 0)
    sizes = [y.shape[axis] for y in node.outputs]
    if not all(isinstance(size, int) for size in sizes):
        return
    node.attrs.pop("num_outputs", None)
    _give(node, "split", sizes, opset)


def explicit_squeeze(node: gs.Node, opset: int) -> bool:
    """Spell out the axes of a Squeeze that takes all extents of 1 before a Gemm, which reads two.

    How many it leaves depends on the batch else, although it must not be one of them.

    Returns:
        Whether axes were written.
    """
    x, y = node.inputs[0], node.outputs[0]
    if _is_given(node, "axes") or x.shape is None or not y.outputs:
        return False
    axes = [axis for axis, extent in enumerate(x.shape) if extent == 1]
    into_gemm = all(reader.op == "Gemm" and reader.inputs[0] is y for reader in y.outputs)
    if not axes or len(x.shape) - len(axes) != 2 or not into_gemm:
        return False
    _give(node, "axes", axes, opset)
    return True


def _is_given(node: gs.Node, name: str) -> bool:
    """Whether a list is an attribute of that name, or the second input."""
    return name in node.attrs or (len(node.inputs) > 1 and not node.inputs[1].is_empty())


def _give(node: gs.Node, name: str, values: list[int], opset: int) -> None:
    """Write a list as an attribute of that name, or as the second input."""
    if opset < LISTS_ARE_INPUTS:
        node.attrs[name] = values
        return
    while len(node.inputs) > 1:  # an empty optional input
        node.inputs.pop()
    label = f"{node.name or node.outputs[0].name}.{name}"
    node.inputs.append(gs.Constant(label, np.array(values, np.int64)))


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
