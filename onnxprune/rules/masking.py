"""Operators that keep some entries of an axis or of a matrix: other axes pass through."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, rule


@rule("Trilu")
def triangle(node: gs.Node, facts: Facts) -> None:
    """Entries of matrices become zero by their place; the axes before the last two pass through."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None:
        return
    for axis in facts.live(x):
        if axis < len(x.shape) - 2:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))


@rule("Compress")
def compress(node: gs.Node, facts: Facts) -> None:
    """Every axis but the compressed one passes through (a constant condition is a Gather)."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or "axis" not in node.attrs:
        return
    for axis in facts.live(x):
        if axis != node.attrs["axis"] % len(x.shape):
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))
