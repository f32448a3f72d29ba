"""What the functions of a model unfold to, before they are written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from onnxprune.errors import UnsupportedModelError

MAX_NODES = 1 << 16
"""Nodes that a model with functions may have when these are written out."""


def check_functions(model: onnx.ModelProto) -> None:
    """Functions end, and do not unfold to more nodes than anybody can work on.

    Raises:
        UnsupportedModelError: they do not.
    """
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    order = _innermost_first(bodies)
    for key in order:
        sizes[key] = _size(bodies[key].node, sizes)
    if bodies and _size(model.graph.node, sizes) > MAX_NODES:
        raise UnsupportedModelError(
            f"the model has more than {MAX_NODES:,} nodes when its functions are written out"
        )


def _size(nodes: Sequence[onnx.NodeProto], sizes: Mapping[tuple[str, str], int]) -> int:
    return sum(sizes.get((node.domain, node.op_type), 1) for node in nodes)


def _innermost_first(
    bodies: Mapping[tuple[str, str], onnx.FunctionProto],
) -> list[tuple[str, str]]:
    """The functions, each behind those that it calls.

    Raises:
        UnsupportedModelError: there is no such order.
    """
    calls = {
        key: {(n.domain, n.op_type) for n in body.node} & bodies.keys()
        for key, body in bodies.items()
    }
    order: list[tuple[str, str]] = []
    while len(order) < len(bodies):
        ready = [key for key in calls if key not in order and calls[key] <= set(order)]
        if not ready:
            name = next(key for key in calls if key not in order)[1]
            raise UnsupportedModelError(f"function '{name}' of the model calls itself")
        order += ready
    return order
