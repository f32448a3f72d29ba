"""Normalisations whose parameters belong to one channel each."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, rule


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
