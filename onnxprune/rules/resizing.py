"""Resize and Upsample: spatial sizes change, channels pass through."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, Kept, fixup, rule


@rule("Resize", "Upsample")
def resize(node: gs.Node, facts: Facts) -> None:
    """An axis that keeps its extent passes through."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        return
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return
    for axis in facts.live(x):
        if isinstance(x.shape[axis], int) and x.shape[axis] == y.shape[axis]:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))


@fixup("Resize")
def resize_sizes(node: gs.Node, kept: Kept) -> None:
    """Where output sizes are spelt out, the channel's size is what survives."""
    if len(node.inputs) < 4 or not isinstance(node.inputs[3], gs.Constant):
        return
    rank = len(node.inputs[0].shape)
    axes = [int(a) % rank for a in node.attrs.get("axes", range(rank))]
    sizes = node.inputs[3].values.copy()
    for place, axis in enumerate(axes):
        if kept.is_cut(node.outputs[0], axis):
            sizes[place] = kept.entries(node.outputs[0], axis).size
    node.inputs[3].values = sizes
