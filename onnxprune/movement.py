"""Nodes that move the entries of a tensor and leave their values, carried out on any array.

Where entry (h, d) of a query comes from is found by sending numbers through the same nodes. A
product with one number acts on all entries alike, and counts as a movement too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array

Movement = Callable[[gs.Node, Array], list[Array]]


class NotMovedError(ValueError):
    """The node computes something, or nobody knows where it moves what."""


def moved(node: gs.Node, source: gs.Tensor, values: Array) -> list[Array]:
    """What the node would make of an array in the place of one of its inputs, for every output.

    Raises:
        NotMovedError: it does more than moving entries.
    """
    movement = _MOVEMENTS.get(node.op)
    standard = not node.domain or node.domain == "ai.onnx"
    if movement is None or not standard or node.inputs[0] is not source:
        if not _is_scaling(node, source, values):
            raise NotMovedError(f"{node.op} '{node.name}' computes")
        return [values]
    try:
        return movement(node, values)
    except (ValueError, IndexError) as error:
        raise NotMovedError(f"'{node.name}' does not fit the sizes tried: {error}") from error


def moved_input(node: gs.Node) -> gs.Tensor:
    """The input a node moves: the one that is not constant, or the first."""
    return next((t for t in node.inputs if not isinstance(t, gs.Constant)), node.inputs[0])


def _is_scaling(node: gs.Node, source: gs.Tensor, values: Array) -> bool:
    """Whether a node multiplies by one number, or divides by it."""
    if node.op not in ("Mul", "Div") or len(node.inputs) != 2:
        return False
    other = node.inputs[1] if node.inputs[0] is source else node.inputs[0]
    if node.op == "Div" and node.inputs[0] is not source:
        return False
    if not isinstance(other, gs.Constant):
        return False
    return bool(other.values.size == 1 and other.values.ndim <= values.ndim)


def _numbers(node: gs.Node, place: int, name: str) -> list[int] | None:
    """What opsets write as an attribute or as a constant input; None where it is left out."""
    if name in node.attrs:
        return [int(value) for value in node.attrs[name]]
    if len(node.inputs) <= place or node.inputs[place].is_empty():
        return None
    if not isinstance(node.inputs[place], gs.Constant):
        raise NotMovedError(f"'{node.inputs[place].name}' is computed")
    return [int(value) for value in node.inputs[place].values.reshape(-1)]


def _identity(node: gs.Node, values: Array) -> list[Array]:
    return [values]


def _transpose(node: gs.Node, values: Array) -> list[Array]:
    return [values.transpose(node.attrs.get("perm"))]


def _reshape(node: gs.Node, values: Array) -> list[Array]:
    shape = _numbers(node, 1, "shape") or []
    if not node.attrs.get("allowzero", 0):
        shape = [extent or values.shape[axis] for axis, extent in enumerate(shape)]
    return [values.reshape(shape)]


def _squeeze(node: gs.Node, values: Array) -> list[Array]:
    axes = _numbers(node, 1, "axes")
    return [values.squeeze(None if axes is None else tuple(axes))]


def _unsqueeze(node: gs.Node, values: Array) -> list[Array]:
    return [np.expand_dims(values, tuple(_numbers(node, 1, "axes") or ()))]


def _split(node: gs.Node, values: Array) -> list[Array]:
    sizes = _numbers(node, 1, "split")  # canonical models spell them out
    if sizes is None:
        raise NotMovedError(f"the sizes of '{node.name}' are not known")
    return np.split(values, np.cumsum(sizes)[:-1], axis=node.attrs.get("axis", 0))


def _slice(node: gs.Node, values: Array) -> list[Array]:
    starts, ends = _numbers(node, 1, "starts"), _numbers(node, 2, "ends")
    if starts is None or ends is None:
        raise NotMovedError(f"the range of '{node.name}' is not known")
    axes = _numbers(node, 3, "axes") or list(range(len(starts)))
    steps = _numbers(node, 4, "steps") or [1] * len(starts)
    ranges = [slice(None)] * values.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:  # the end of a range that runs backwards is another one in Python
            raise NotMovedError(f"'{node.name}' runs backwards")
        ranges[axis] = slice(start, end, step)
    return [values[tuple(ranges)]]


def _gather(node: gs.Node, values: Array) -> list[Array]:
    if not isinstance(node.inputs[1], gs.Constant):
        raise NotMovedError(f"the indices of '{node.name}' are computed")
    return [np.take(values, node.inputs[1].values, axis=node.attrs.get("axis", 0))]


_MOVEMENTS: dict[str, Movement] = {
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
