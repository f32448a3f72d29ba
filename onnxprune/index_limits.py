"""How large the whole numbers of an input may be: those that look entries of a table up."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

PASSED_ON = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators behind which the values are the same."""
_EMBEDDED = {0: 2, 1: 4}
"""For com.microsoft's EmbedLayerNormalization: place of the numbers -> place of their table."""


def index_limits(model: onnx.ModelProto) -> dict[str, int]:
    """Input name -> entries of the smallest table that it looks up; others are left out."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    sources = {value.name: value.name for value in model.graph.input if value.name not in sizes}
    limits: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in PASSED_ON and node.input[0] in sources:
            sources[node.output[0]] = sources[node.input[0]]
        for name, entries in _looked_up(node, sizes):
            if name in sources:
                source = sources[name]
                limits[source] = min(entries, limits.get(source, entries))
    return limits


def _looked_up(
    node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, int]]:
    """The numbers that a node looks up, and the entries of their table."""
    if node.op_type == "Gather" and sizes.get(node.input[0]):
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        yield node.input[1], sizes[node.input[0]][axis]
    if node.op_type == "EmbedLayerNormalization":
        for numbers, table in _EMBEDDED.items():
            if len(node.input) > table and sizes.get(node.input[table]):
                yield node.input[numbers], sizes[node.input[table]][0]
