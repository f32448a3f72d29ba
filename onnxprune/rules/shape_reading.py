"""Shape: reading extents holds an axis in place only if somebody uses its number."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, rule
from onnxprune.shape_values import DEPTH_LIMIT, elements_of, picked_places

Places = set[int]
"""Places of a vector; a scalar has place 0."""

BY_PLACE = (
    "Abs",
    "Add",
    "And",
    "Cast",
    "Ceil",
    "Div",
    "Equal",
    "Floor",
    "Greater",
    "Identity",
    "Less",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Round",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Unsqueeze",
    "Where",
)
"""Operators whose result at a place depends on that place of their inputs alone."""


@rule("Shape")
def shape(node: gs.Node, facts: Facts) -> None:
    """An axis of X may be cut if nothing depends on its element of the shape."""
    x = node.inputs[0]
    if x.shape is None:
        return
    axes = range(len(x.shape))[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
    used = _used(node.outputs[0], len(axes))
    for axis in facts.live(x):
        if axis not in axes or axes.index(axis) not in used:
            facts.axis(x, axis)


def _used(tensor: gs.Tensor, length: int, depth: int = 0) -> Places:
    """The places of a vector that its readers depend on, all of them where in doubt."""
    everything = set(range(length))
    if not tensor.outputs or depth > DEPTH_LIMIT:
        return everything  # a graph output
    used: Places = set()
    for reader in tensor.outputs:
        follow = _FOLLOWED.get(reader.op)
        found = None if follow is None else follow(reader, tensor, length, depth + 1)
        used |= everything if found is None else found
    return used


def _picked(node: gs.Node, tensor: gs.Tensor, length: int, depth: int) -> Places | None:
    """Gather and Slice: what is picked, as far as that is used."""
    if any(other is tensor for other in node.inputs[1:]):
        return None
    places = picked_places(node, length)
    if places is None:
        return None
    return {places[place] for place in _used(node.outputs[0], len(places), depth)}


def _joined(node: gs.Node, tensor: gs.Tensor, length: int, depth: int) -> Places | None:
    """Concat: what is used of the pieces that this tensor is."""
    lengths = [len(elements_of(piece) or []) for piece in node.inputs]
    if not all(lengths):
        return None
    used = _used(node.outputs[0], sum(lengths), depth)
    begins = [sum(lengths[:i]) for i, piece in enumerate(node.inputs) if piece is tensor]
    return {place for place in range(length) for begin in begins if begin + place in used}


def _by_place(node: gs.Node, tensor: gs.Tensor, length: int, depth: int) -> Places | None:
    y = node.outputs[0]
    if y.shape is None or len(y.shape) > 1:
        return None
    made = y.shape[0] if len(y.shape) else 1
    if not isinstance(made, int) or length not in (1, made):
        return None
    used = _used(y, made, depth)
    return used if length == made else {0 for _ in used}


_FOLLOWED: dict[str, Callable[[gs.Node, gs.Tensor, int, int], Places | None]] = {
    "Concat": _joined,
    "Gather": _picked,
    "Slice": _picked,
    **dict.fromkeys(BY_PLACE, _by_place),
}
