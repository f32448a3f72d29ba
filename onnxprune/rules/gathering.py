"""Gather: channels picked by constant indices, or other axes picked from while channels pass."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.rules.registry import Facts, Kept, fixup, rule


@rule("Gather")
def gather(node: gs.Node, facts: Facts) -> None:
    """Along its axis, Y[j] is X[indices[j]]; the axes of the indices take the place of the axis."""
    x, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if x.shape is None or indices.shape is None:
        return
    picked = _axis(node)
    added = len(indices.shape) - 1
    for axis in facts.live(x):
        if axis != picked:
            place = axis if axis < picked else axis + added
            facts.couple(facts.axis(x, axis), facts.axis(y, place))
        elif _constant(indices) and added <= 0:
            _pick(node, facts, facts.axis(x, axis))


def _pick(node: gs.Node, facts: Facts, slots: IndexArray) -> None:
    """Couple the picked channels; a single one, whose axis is gone, has to stay."""
    values = node.inputs[1].values
    if not slots.size:
        return
    chosen = slots[values]
    if values.ndim:
        facts.couple(chosen, facts.axis(node.outputs[0], _axis(node)))
    else:
        facts.freeze(chosen.reshape(1), f"Gather '{node.name}' takes it out of its axis")


@fixup("Gather")
def gather_indices(node: gs.Node, kept: Kept) -> None:
    """Indices count surviving channels, and those of removed ones go."""
    x, indices = node.inputs[0], node.inputs[1]
    if x.shape is None or not _constant(indices):
        return
    axis = _axis(node)
    if not kept.is_cut(x, axis):
        return
    survivors = kept.entries(x, axis)
    values = np.arange(x.shape[axis])[indices.values]  # negative ones count from the end
    values = values[np.isin(values, survivors)] if values.ndim else values
    indices.values = np.asarray(np.searchsorted(survivors, values), indices.values.dtype)


def _axis(node: gs.Node) -> int:
    return int(node.attrs.get("axis", 0)) % len(node.inputs[0].shape)


def _constant(indices: gs.Tensor) -> bool:
    """Whether the indices are known, and read by this node alone, so that they can be changed."""
    return isinstance(indices, gs.Constant) and len(indices.outputs) == 1
