"""Operators that put channel axes together and take them apart."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, Kept, fixup, rule


@rule("Concat")
def concat(node: gs.Node, facts: Facts) -> None:
    """Along its axis, Y holds the inputs' indices one after another; other axes are equal."""
    y = node.outputs[0]
    if y.shape is None or any(t.shape is None for t in node.inputs):
        return
    joined = node.attrs["axis"] % len(y.shape)
    carried = {axis for tensor in node.inputs for axis in facts.live(tensor)}
    for axis in sorted(carried):
        slots = facts.axis(y, axis)
        offset = 0
        for tensor in node.inputs:
            own = facts.axis(tensor, axis)
            piece = slots[offset : offset + own.size] if axis == joined else slots
            facts.couple(own, piece)
            offset += own.size
        if axis == joined and offset != slots.size:
            facts.freeze(slots, f"an input of '{node.name}' has an unknown extent")


@rule("Split")
def split(node: gs.Node, facts: Facts) -> None:
    """Along its axis, the outputs hold X's indices one after another; other axes are equal."""
    x = node.inputs[0]
    if x.shape is None or any(y.shape is None for y in node.outputs):
        return
    cut = node.attrs.get("axis", 0) % len(x.shape)
    spelt_out = len(node.inputs) > 1 and isinstance(node.inputs[1], gs.Constant)
    if not spelt_out and "split" not in node.attrs:
        return
    for axis in facts.live(x):
        slots = facts.axis(x, axis)
        offset = 0
        for y in node.outputs:
            own = facts.axis(y, axis)
            facts.couple(slots[offset : offset + own.size] if axis == cut else slots, own)
            offset += own.size


@fixup("Split")
def split_sizes(node: gs.Node, kept: Kept) -> None:
    """The sizes become the counts that survive in each output."""
    if node.inputs[0].shape is None:
        return
    axis = node.attrs.get("axis", 0) % len(node.inputs[0].shape)
    if not kept.is_cut(node.inputs[0], axis):
        return
    sizes = [int(kept.entries(y, axis).size) for y in node.outputs]
    if "split" in node.attrs:
        node.attrs["split"] = sizes
    else:
        node.inputs[1].values = np.array(sizes, np.int64)


@rule("Slice")
def slice_(node: gs.Node, facts: Facts) -> None:
    """Along a sliced axis, Y holds the indices start, start + 1, ... of X."""
    x, y = node.inputs[0], node.outputs[0]
    ranges = _ranges(node)
    if ranges is None or y.shape is None:
        return
    for axis in facts.live(x):
        slots = facts.axis(x, axis)
        start, end, step = ranges.get(axis, (0, slots.size, 1))
        picked = slots[start:end:step]
        # The kept ones of every second channel are no arithmetic progression.
        if step == 1 and picked.size:
            facts.couple(picked, facts.axis(y, axis))
        else:
            facts.freeze(slots, f"'{node.name}' takes every {step}th channel")


@fixup("Slice")
def slice_bounds(node: gs.Node, kept: Kept) -> None:
    """Start and end count surviving indices."""
    ranges = _ranges(node) or {}
    for axis, (start, end, _) in ranges.items():
        if not kept.is_cut(node.inputs[0], axis):
            continue
        extent = node.inputs[0].shape[axis]
        low, high, _ = slice(start, end).indices(extent)
        before, after = np.searchsorted(kept.entries(node.inputs[0], axis), [low, high])
        _write_range(node, axis, int(before), int(after))


def _slice_lists(node: gs.Node) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """starts, ends, axes, steps as lists; None when one of them is not constant."""
    if "starts" in node.attrs:
        starts, ends = list(node.attrs["starts"]), list(node.attrs["ends"])
        return starts, ends, list(node.attrs.get("axes", range(len(starts)))), [1] * len(starts)
    given = [t for t in node.inputs[1:] if not t.is_empty()]
    if not all(isinstance(t, gs.Constant) for t in given):
        return None
    values = [[] if t.is_empty() else t.values.reshape(-1).tolist() for t in node.inputs[1:]]
    starts, ends, axes, steps = (*values, [], [])[:4]
    return starts, ends, axes or list(range(len(starts))), steps or [1] * len(starts)


def _ranges(node: gs.Node) -> dict[int, tuple[int, int, int]] | None:
    lists = _slice_lists(node)
    if lists is None or node.inputs[0].shape is None:
        return None
    rank = len(node.inputs[0].shape)
    return {
        int(axis) % rank: (int(start), int(end), int(step))
        for start, end, axis, step in zip(*lists, strict=True)
    }


def _write_range(node: gs.Node, axis: int, start: int, end: int) -> None:
    lists = _slice_lists(node)
    assert lists is not None  # a slice with unknown bounds is never cut
    rank = len(node.inputs[0].shape)
    place = [int(a) % rank for a in lists[2]].index(axis)
    starts, ends = lists[0], lists[1]
    starts[place], ends[place] = start, end
    if "starts" in node.attrs:
        node.attrs.update(starts=starts, ends=ends)
    else:
        node.inputs[1].values = np.array(starts, node.inputs[1].values.dtype)
        node.inputs[2].values = np.array(ends, node.inputs[2].values.dtype)


@rule("Pad")
def pad(node: gs.Node, facts: Facts) -> None:
    """Along a padded axis, Y[begin + i] is X[i]; the padded indices are channels of their own."""
    x, y = node.inputs[0], node.outputs[0]
    widths = _pad_widths(node)
    if widths is None:
        return
    begin, end = widths
    for axis in facts.live(x):
        slots, padded = facts.axis(x, axis), facts.axis(y, axis)
        untouched = begin[axis] == 0 and end[axis] == 0
        constant = node.attrs.get("mode", "constant") == "constant"
        if untouched or (constant and begin[axis] >= 0 and end[axis] >= 0):
            facts.couple(slots, padded[begin[axis] : begin[axis] + slots.size])
        else:
            facts.freeze(slots, f"'{node.name}' fills channels from other channels")


@fixup("Pad")
def pad_widths(node: gs.Node, kept: Kept) -> None:
    """The widths count the surviving padded indices."""
    widths = _pad_widths(node)
    if widths is None:
        return
    begin, end = widths
    rank = len(begin)
    for axis in range(rank):
        if not kept.is_cut(node.outputs[0], axis):
            continue
        survivors = kept.entries(node.outputs[0], axis)
        stop = begin[axis] + node.inputs[0].shape[axis]
        begin[axis], end[axis] = (
            int((survivors < begin[axis]).sum()),
            int((survivors >= stop).sum()),
        )
    _write_pads(node, begin, end)


def _pad_axes(node: gs.Node, rank: int) -> list[int] | None:
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        if not isinstance(node.inputs[3], gs.Constant):
            return None
        return [int(a) % rank for a in node.inputs[3].values.reshape(-1)]
    return list(range(rank))


def _pad_widths(node: gs.Node) -> tuple[list[int], list[int]] | None:
    """Padding at the beginning and the end of every axis; None when it is not constant."""
    if node.inputs[0].shape is None:
        return None
    rank = len(node.inputs[0].shape)
    axes = _pad_axes(node, rank)
    pads = node.attrs.get("pads", node.attrs.get("paddings"))
    if pads is None:
        if not isinstance(node.inputs[1], gs.Constant):
            return None
        pads = node.inputs[1].values.reshape(-1).tolist()
    if axes is None or len(pads) != 2 * len(axes):
        return None
    begin, end = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begin[axis], end[axis] = int(pads[place]), int(pads[place + len(axes)])
    return begin, end


def _write_pads(node: gs.Node, begin: list[int], end: list[int]) -> None:
    axes = _pad_axes(node, len(begin)) or []
    pads = [begin[a] for a in axes] + [end[a] for a in axes]
    for key in ("pads", "paddings"):
        if key in node.attrs:
            node.attrs[key] = pads
            return
    node.inputs[1].values = np.array(pads, np.int64)
