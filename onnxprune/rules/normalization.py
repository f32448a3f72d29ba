"""Normalisations: those within a channel or a group of channels, and those across an axis."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, Kept, fixup, rule

SOFTMAX_OF_ONE_AXIS = 13
"""First opset in which Softmax takes one axis, not all from the given one (or the second) on."""


@rule("BatchNormalization")
def batch_normalization(node: gs.Node, facts: Facts) -> None:
    """Y[:, c] depends on X[:, c] and on entry c of scale, bias, mean and variance."""
    if len(node.outputs) != 1 or node.attrs.get("training_mode", 0):
        return
    made = facts.axis(node.outputs[0], 1)
    facts.couple(facts.axis(node.inputs[0], 1), made)
    for parameter in node.inputs[1:]:
        facts.couple(facts.axis(parameter, 0), made)
    for axis in facts.live(node.inputs[0]):
        if axis != 1:
            facts.couple(facts.axis(node.inputs[0], axis), facts.axis(node.outputs[0], axis))


@rule("InstanceNormalization")
def instance_normalization(node: gs.Node, facts: Facts) -> None:
    """Y[:, c] depends on X[:, c] and on entry c of scale and bias; space is averaged over."""
    made = facts.axis(node.outputs[0], 1)
    facts.couple(facts.axis(node.inputs[0], 1), made)
    for parameter in node.inputs[1:]:
        facts.couple(facts.axis(parameter, 0), made)
    _pass_batch(node, facts)


@rule("GroupNormalization")
def group_normalization(node: gs.Node, facts: Facts) -> None:
    """The channels of a group are one: they share mean and variance, and go together.

    Without one of its channels a group would have another mean and variance, so that slicing
    would not be masking. Scale and bias have an entry per group (opset 18) or channel (opset 21).
    """
    made = facts.axis(node.outputs[0], 1)
    groups = node.attrs["num_groups"]
    if not made.size or made.size % groups:
        return
    if groups == 1:
        facts.freeze(made, mixes(node))
    first = made[:: made.size // groups]
    facts.couple(facts.axis(node.inputs[0], 1), made)
    facts.couple(made, np.repeat(first, made.size // groups))
    for parameter in node.inputs[1:]:
        slots = facts.axis(parameter, 0)
        facts.couple(slots, first if slots.size == groups else made)
    _pass_batch(node, facts)


@fixup("GroupNormalization")
def group_normalization_groups(node: gs.Node, kept: Kept) -> None:
    """Whole groups survive, as large as before."""
    y = node.outputs[0]
    if kept.is_cut(y, 1):
        size = y.shape[1] // node.attrs["num_groups"]
        node.attrs["num_groups"] = int(kept.entries(y, 1).size) // size


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(node: gs.Node, facts: Facts) -> None:
    """Every axis before the first normalised one passes through, to mean and deviation as well."""
    x = node.inputs[0]
    if x.shape is not None:
        first = node.attrs.get("axis", -1) % len(x.shape)
        normalise(node, facts, set(range(first, len(x.shape))))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(node: gs.Node, facts: Facts) -> None:
    """Every axis that is not averaged over passes through."""
    if node.inputs[0].shape is not None:
        rank = len(node.inputs[0].shape)
        axes = node.attrs.get("axes", [0, 2, 3])
        normalise(node, facts, {int(axis) % rank for axis in axes})


@rule("LRN")
def local_response_normalization(node: gs.Node, facts: Facts) -> None:
    """Channels are divided by what lies in a window of their neighbours; other axes pass through.

    Without a channel, those beside it would have other neighbours and another divisor.
    """
    window = f"{mixes(node)}, in a window of {node.attrs['size']} neighbours"
    normalise(node, facts, {1}, window)


@rule("Hardmax", "LogSoftmax", "Softmax")
def softmax(node: gs.Node, facts: Facts) -> None:
    """Every axis but the normalised one (or ones, before opset 13) passes through."""
    if facts.opset >= SOFTMAX_OF_ONE_AXIS:
        lp_normalization(node, facts)
        return
    x = node.inputs[0]
    if x.shape is not None:
        first = node.attrs.get("axis", 1) % len(x.shape)
        normalise(node, facts, set(range(first, len(x.shape))))


@rule("LpNormalization")
def lp_normalization(node: gs.Node, facts: Facts) -> None:
    """Every axis but the normalised one passes through."""
    x = node.inputs[0]
    if x.shape is not None:
        normalise(node, facts, {node.attrs.get("axis", -1) % len(x.shape)})


def normalise(node: gs.Node, facts: Facts, mixed: set[int], reason: str = "") -> None:
    """Freeze the mixed axes and let the others pass."""
    x, y = node.inputs[0], node.outputs[0]
    for axis in facts.live(x):
        if axis in mixed:
            facts.freeze(facts.axis(x, axis), reason or mixes(node))
            facts.freeze(facts.axis(y, axis), reason or mixes(node))
            continue
        for output in node.outputs:
            if not output.is_empty():
                facts.couple(facts.axis(x, axis), facts.axis(output, axis))


def mixes(node: gs.Node) -> str:
    """Why a normalised axis cannot be cut: without a channel, the others would change."""
    return f"{node.op} '{node.name}' mixes its channels"


def _pass_batch(node: gs.Node, facts: Facts) -> None:
    if 0 in facts.live(node.inputs[0]):
        facts.couple(facts.axis(node.inputs[0], 0), facts.axis(node.outputs[0], 0))
