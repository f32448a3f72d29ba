"""Expand and Tile: values are repeated along some axes, and the others pass through."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.coupling import MOST_CHANNELS
from onnxprune.recurrent_map import RECURRENT_OPS
from onnxprune.rules.registry import Facts, Kept, fixup, rule
from onnxprune.shape_values import Extent, elements_of
from onnxprune.shape_writing import write_element


@rule("Tile")
def tile(node: gs.Node, facts: Facts) -> None:
    """Along every axis, Y holds X's indices, as many times over as the repeats say."""
    x, y = node.inputs[0], node.outputs[0]
    times = elements_of(node.inputs[1])
    if times is None or x.shape is None or len(times) != len(x.shape):
        return
    for axis in _carried(node, facts):
        repeats = times[axis]
        if isinstance(repeats, int) and 0 < repeats * x.shape[axis] <= MOST_CHANNELS:
            facts.couple(np.tile(facts.axis(x, axis), repeats), facts.axis(y, axis))


@rule("Expand")
def expand(node: gs.Node, facts: Facts) -> None:
    """Axes are matched from the right; what one of extent 1 grows to may be cut in Y alone."""
    x, y = node.inputs[0], node.outputs[0]
    shape = elements_of(node.inputs[1])
    if shape is None or x.shape is None or y.shape is None:
        return
    added = len(y.shape) - len(x.shape)
    carried = _carried(node, facts)
    for axis, extent in enumerate(x.shape):
        grown = shape[axis + len(shape) - len(x.shape)] if len(shape) >= len(x.shape) else 1
        if carried and axis not in carried and extent == 1 and isinstance(grown, int) and grown > 1:
            facts.axis(y, axis + added)  # queries that share a key, for instance
    for axis in carried:
        place = axis + added - (len(y.shape) - len(shape))
        wanted = shape[place] if place >= 0 else 1
        copied = wanted.equals(x, axis) if isinstance(wanted, Extent) else wanted == x.shape[axis]
        if copied or wanted == 1:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis + added))
        elif x.shape[axis] == 1:
            facts.freeze(facts.axis(x, axis), f"'{node.name}' repeats one channel of '{x.name}'")


@fixup("Expand")
def expand_shape(node: gs.Node, kept: Kept) -> None:
    """The extent of a cut axis is what survives."""
    shape, y = node.inputs[1], node.outputs[0]
    elements = elements_of(shape)
    if elements is None or y.shape is None:
        return
    added = len(y.shape) - len(elements)
    for place, element in enumerate(elements):
        if isinstance(element, int) and element != 1 and kept.is_cut(y, place + added):
            write_element(shape, place, int(kept.entries(y, place + added).size))


def _carried(node: gs.Node, facts: Facts) -> list[int]:
    """The axes of X with channels; for a constant initial state, whose reader comes later, all."""
    x, y = node.inputs[0], node.outputs[0]
    if isinstance(x, gs.Constant) and any(reader.op in RECURRENT_OPS for reader in y.outputs):
        return [axis for axis, extent in enumerate(x.shape) if extent > 1]
    return facts.live(x)
