"""Operators that gather over space and leave batch and channels alone; reductions over axes."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.normalization import mixes
from onnxprune.rules.registry import Facts, rule

REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)


@rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
def pool(node: gs.Node, facts: Facts) -> None:
    """Y[:, c] depends on X[:, c]; only spatial positions are mixed."""
    x, y = node.inputs[0], node.outputs[0]
    if any(not output.is_empty() for output in node.outputs[1:]):
        return  # the indices of a MaxPool count through all channels
    for axis in facts.live(x):
        if axis < 2:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))


@rule(*REDUCTIONS)
def reduction(node: gs.Node, facts: Facts) -> None:
    """Axes that are not reduced pass through, renumbered when the reduced ones are dropped."""
    axes = _reduced_axes(node)
    if axes is not None:
        _pass_others(node, facts, axes)


def _pass_others(node: gs.Node, facts: Facts, axes: set[int]) -> None:
    x, y = node.inputs[0], node.outputs[0]
    keep_dims = node.attrs.get("keepdims", 1)
    for axis in facts.live(x):
        if axis in axes:
            facts.freeze(facts.axis(x, axis), mixes(node))
        else:
            shift = 0 if keep_dims else sum(reduced < axis for reduced in axes)
            facts.couple(facts.axis(x, axis), facts.axis(y, axis - shift))


@rule("ArgMax", "ArgMin")
def position(node: gs.Node, facts: Facts) -> None:
    """As a reduction of one axis: positions along it say nothing about channels on others."""
    if node.inputs[0].shape is not None:
        axis = node.attrs.get("axis", 0) % len(node.inputs[0].shape)
        _pass_others(node, facts, {axis})


def _reduced_axes(node: gs.Node) -> set[int] | None:
    """The reduced axes, non-negative; None when they are not known."""
    if node.inputs[0].shape is None:
        return None
    rank = len(node.inputs[0].shape)
    given = node.attrs.get("axes")
    if len(node.inputs) > 1 and not node.inputs[1].is_empty():
        if not isinstance(node.inputs[1], gs.Constant):
            return None
        given = node.inputs[1].values.reshape(-1).tolist()
    if not given:
        return set() if node.attrs.get("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in given}
