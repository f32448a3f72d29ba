"""Resize and Upsample: spatial sizes change, channels pass through."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, Kept, fixup, rule
from onnxprune.shape_values import Extent
from onnxprune.shape_writing import element, write_element


@rule("Resize", "Upsample")
def resize(node: gs.Node, facts: Facts) -> None:
    """An axis whose scale is 1, or whose size is spelt out and stays, passes through."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        return
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return
    for axis in facts.live(x):
        if _stays(node, axis):
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))


def _stays(node: gs.Node, axis: int) -> bool:
    """Whether an axis is certainly copied."""
    rank = len(node.inputs[0].shape)
    axes = [int(a) % rank for a in node.attrs.get("axes", range(rank))]
    if axis not in axes:
        return True
    place = axes.index(axis)
    if "scales" in node.attrs:
        return bool(node.attrs["scales"][place] == 1)
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        size, x = element(node.inputs[3], place), node.inputs[0]
        return size.equals(x, axis) if isinstance(size, Extent) else size == x.shape[axis]
    # Resize 10 and Upsample 9 have the scales second, later ones third.
    scales = node.inputs[2 if len(node.inputs) > 2 else 1]
    return isinstance(scales, gs.Constant) and bool(scales.values[place] == 1)


@fixup("Resize")
def resize_sizes(node: gs.Node, kept: Kept) -> None:
    """Where output sizes are spelt out, the channel's size is what survives."""
    if len(node.inputs) < 4 or node.inputs[3].is_empty() or node.inputs[0].shape is None:
        return
    rank = len(node.inputs[0].shape)
    axes = [int(a) % rank for a in node.attrs.get("axes", range(rank))]
    for place, axis in enumerate(axes):
        if kept.is_cut(node.outputs[0], axis):
            write_element(node.inputs[3], place, int(kept.entries(node.outputs[0], axis).size))
