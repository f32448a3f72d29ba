"""What nodes leave implied, spelt out: sizes of a Split, paddings of a Conv, factors of an axis."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.names import fresh
from onnxprune.shape_values import symbol

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


def explicit_factors(graph: gs.Graph) -> None:
    """Put a Reshape between, where one divides an axis and merges it with ones nobody knows.

    PyTorch writes the groups of a GroupNorm as (n, 8, h, w) -> (n, 4, -1) and back. By way of
    (n, 4, 2, -1) it is clear which channels belong to a group, though h and w are not known.
    """
    names = set(graph.tensors())
    for node in list(graph.nodes):
        if node.op != "Reshape" or len(node.inputs) < 2 or node.attrs.get("allowzero", 0):
            continue
        shape = _between(node.inputs[0], node.outputs[0])
        if shape is None:
            continue
        x = node.inputs[0]
        inner = gs.Variable(fresh(f"{node.outputs[0].name}/factors", names), x.dtype)
        values = gs.Constant(fresh(f"{inner.name}/shape", names), np.array(shape, np.int64))
        node.inputs[0] = inner
        between = gs.Node("Reshape", inner.name, {}, [x, values], [inner])
        graph.nodes.insert(graph.nodes.index(node), between)


def _between(x: gs.Tensor, y: gs.Tensor) -> list[int] | None:
    """The shape between two, if one axis is divided and what comes behind it is not known."""
    if x.shape is None or y.shape is None:
        return None
    first = 0
    while first < min(len(x.shape), len(y.shape)) and symbol(x, first) == symbol(y, first):
        first += 1
    rest = [list(x.shape[first:]), list(y.shape[first:])]
    if not all(len(extents) > 1 and isinstance(extents[0], int) for extents in rest):
        return None
    small, large = sorted((rest[0][0], rest[1][0]))
    unknown = not all(isinstance(extent, int) for extent in (*rest[0], *rest[1]))
    divided = any(extents[:2] == [small, large // max(small, 1)] for extents in rest)
    if not unknown or divided or small < 2 or large % small or large == small:
        return None
    return [0] * first + [small, large // small, -1]
