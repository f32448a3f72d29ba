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
    """Blocks of axes with equal products, from the right, as far as extents are known numbers.

    Returns pairs (source axes, target axes), each sorted. An axis in no block is not accounted
    for.
    """
    blocks: list[Block] = []
    i, j = len(source), len(target)
    while i > 0 and j > 0:
        left, right = [i - 1], [j - 1]
        a, b = source[i - 1], target[j - 1]
        while a != b:
            if not isinstance(a, int) or not isinstance(b, int):
                return blocks
            if a < b:
                position = left[-1] - 1
                if position < 0 or not isinstance(source[position], int):
                    return blocks
                left.append(position)
                a *= source[position]
            else:
                position = right[-1] - 1
                if position < 0 or not isinstance(target[position], int):
                    return blocks
                right.append(position)
                b *= target[position]
        i, j = left[-1], right[-1]
        blocks.append((left[::-1], right[::-1]))
    return blocks
