"""Operators that rearrange axes without touching values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, Kept, fixup, rule

Block = tuple[list[int], list[int]]


@rule("Transpose")
def transpose(node: gs.Node, facts: Facts) -> None:
    """Axis perm[i] of X is axis i of Y."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None:
        return
    perm = list(node.attrs.get("perm", range(len(x.shape) - 1, -1, -1)))
    for axis in facts.live(x):
        facts.couple(facts.axis(x, axis), facts.axis(y, perm.index(axis)))


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def regroup(node: gs.Node, facts: Facts) -> None:
    """An axis is kept, gains or loses neighbours of extent 1, or is merged with its neighbours.

    Merging axes of extents e_0 ... e_n into one, index c of axis a becomes every flat index whose
    coordinate along a is c. One of the merged axes can carry channels, not two.
    """
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        return
    computed = len(node.inputs) > 1 and not isinstance(node.inputs[1], gs.Constant)
    if node.op == "Reshape" and computed:
        return  # nobody could correct such a shape
    live = set(facts.live(x))
    for sources, targets in match_axes(list(x.shape), list(y.shape)):
        carrying = [axis for axis in sources if axis in live]
        wide = [axis for axis in targets if y.shape[axis] != 1]
        if len(carrying) != 1:
            continue
        if not wide and targets:
            wide = targets[-1:]
        if len(wide) != 1:
            continue  # one axis becomes several: no rule states that yet
        slots = facts.axis(x, carrying[0])
        merged = facts.axis(y, wide[0])
        if slots.size and merged.size:
            extents = [x.shape[axis] for axis in sources]
            grid = np.indices(extents)[sources.index(carrying[0])].reshape(-1)
            facts.couple(slots[grid], merged)
        else:
            facts.couple(slots, merged)


@fixup("Reshape")
def reshape_shape(node: gs.Node, kept: Kept) -> None:
    """A spelt-out extent becomes what survives; 0 (copied) and -1 (inferred) stay."""
    if len(node.inputs) < 2:  # opset below 5
        node.attrs["shape"] = _surviving_shape(node, list(node.attrs["shape"]), kept)
        return
    if isinstance(node.inputs[1], gs.Constant):
        values = node.inputs[1].values
        survivors = _surviving_shape(node, values.tolist(), kept)
        node.inputs[1].values = np.array(survivors, values.dtype)


def _surviving_shape(node: gs.Node, shape: list[int], kept: Kept) -> list[int]:
    y = node.outputs[0]
    return [
        int(kept.entries(y, axis).size) if extent > 0 and kept.is_cut(y, axis) else extent
        for axis, extent in enumerate(shape)
    ]


def match_axes(source: list[Any], target: list[Any]) -> list[Block]:
    """Blocks of axes with equal products, as far as extents are known.

    Matched from the right as far as possible, then the rest from the left: one extent nobody
    knows in between does no harm. Equal names stand for equal extents, None for an unknown one.

    Returns pairs (source axes, target axes), each sorted. An axis in no block is not accounted
    for.
    """
    blocks = _match_from_right(source, target)
    i = min((block[0][0] for block in blocks), default=len(source))
    j = min((block[1][0] for block in blocks), default=len(target))
    mirrored = _match_from_right(source[:i][::-1], target[:j][::-1])
    turned = [
        (sorted(i - 1 - axis for axis in left), sorted(j - 1 - axis for axis in right))
        for left, right in mirrored
    ]
    return blocks + turned


def _match_from_right(source: list[Any], target: list[Any]) -> list[Block]:
    blocks: list[Block] = []
    i, j = len(source), len(target)
    while i > 0 and j > 0 and source[i - 1] is not None and target[j - 1] is not None:
        left, right = [i - 1], [j - 1]
        a, b = source[i - 1], target[j - 1]
        while a != b:
            if not isinstance(a, int) or not isinstance(b, int):
                return blocks
            axes, extents = (left, source) if a < b else (right, target)
            position = axes[-1] - 1
            if position < 0 or not isinstance(extents[position], int):
                return blocks
            axes.append(position)
            if a < b:
                a *= source[position]
            else:
                b *= target[position]
        i, j = left[-1], right[-1]
        blocks.append((left[::-1], right[::-1]))
    return blocks
