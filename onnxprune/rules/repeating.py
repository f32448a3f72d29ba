"""Expand and Tile: values are repeated along some axes, and the others pass through."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, Kept, fixup, rule


@rule("Tile")
def tile(node: gs.Node, facts: Facts) -> None:
    """Along every axis, Y holds X's indices, as many times over as the constant repeats say."""
    x, repeats, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if not isinstance(repeats, gs.Constant):
        return
    times = repeats.values.tolist()
    for axis in facts.live(x):
        facts.couple(np.tile(facts.axis(x, axis), times[axis]), facts.axis(y, axis))


@rule("Expand")
def expand(node: gs.Node, facts: Facts) -> None:
    """Axes are matched from the right; one of extent 1 that grows holds no channel."""
    x, shape, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if not isinstance(shape, gs.Constant) or x.shape is None or y.shape is None:
        return
    added = len(y.shape) - len(x.shape)
    for axis in facts.live(x):
        if x.shape[axis] == y.shape[axis + added]:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis + added))
        else:
            facts.freeze(facts.axis(x, axis), f"'{node.name}' repeats one channel of '{x.name}'")


@fixup("Expand")
def expand_shape(node: gs.Node, kept: Kept) -> None:
    """The extent of a cut axis is what survives."""
    shape, y = node.inputs[1], node.outputs[0]
    if not isinstance(shape, gs.Constant) or y.shape is None:
        return
    values = shape.values.copy()
    added = len(y.shape) - values.size
    for place in range(values.size):
        if kept.is_cut(y, place + added):
            values[place] = kept.entries(y, place + added).size
    shape.values = values
