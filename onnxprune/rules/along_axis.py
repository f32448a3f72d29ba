"""Operators that work, pick or write along one axis: the other axes pass through."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, rule


@rule("CumSum")
def cumulated(node: gs.Node, facts: Facts) -> None:
    """Every axis but the one that is summed along passes through."""
    x, axis = node.inputs[0], node.inputs[1]
    if x.shape is not None and isinstance(axis, gs.Constant):
        worked = int(axis.values.reshape(-1)[0]) % len(x.shape)
        _pass(facts, x, node.outputs, {worked})


@rule("TopK")
def top_k(node: gs.Node, facts: Facts) -> None:
    """Every axis but the one that is sorted passes through, to values and places."""
    x = node.inputs[0]
    if x.shape is not None:
        _pass(facts, x, node.outputs, {node.attrs.get("axis", -1) % len(x.shape)})


@rule("ReverseSequence")
def reverse_sequence(node: gs.Node, facts: Facts) -> None:
    """Every axis but those of time and batch passes through."""
    worked = {node.attrs.get("time_axis", 0), node.attrs.get("batch_axis", 1)}
    _pass(facts, node.inputs[0], node.outputs, worked)


@rule("GatherElements")
def gather_elements(node: gs.Node, facts: Facts) -> None:
    """Every axis but the one that is picked along passes through, from the indices as well."""
    x, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if x.shape is None or indices.shape is None:
        return
    worked = node.attrs.get("axis", 0) % len(x.shape)
    for axis in sorted({*facts.live(x), *facts.live(indices)}):
        if axis != worked and x.shape[axis] == indices.shape[axis]:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))
            facts.couple(facts.axis(indices, axis), facts.axis(y, axis))


@rule("ScatterElements")
def scatter_elements(node: gs.Node, facts: Facts) -> None:
    """Every axis but the one that is written along passes through, from all inputs."""
    x, y = node.inputs[0], node.outputs[0]
    if any(tensor.shape is None for tensor in node.inputs):
        return
    worked = node.attrs.get("axis", 0) % len(x.shape)
    carried = {axis for tensor in node.inputs for axis in facts.live(tensor)}
    for axis in sorted(carried - {worked}):
        if all(tensor.shape[axis] == x.shape[axis] for tensor in node.inputs):
            for tensor in node.inputs:
                facts.couple(facts.axis(tensor, axis), facts.axis(y, axis))


@rule("GatherND")
def gather_nd(node: gs.Node, facts: Facts) -> None:
    """Axes of X behind those that the indices count along pass through."""
    x, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
    counted = _counted(indices)
    if x.shape is None or counted is None:
        return
    first = node.attrs.get("batch_dims", 0) + counted
    for axis in facts.live(x):
        if axis >= first:
            place = axis - first + len(indices.shape) - 1
            facts.couple(facts.axis(x, axis), facts.axis(y, place))


@rule("ScatterND")
def scatter_nd(node: gs.Node, facts: Facts) -> None:
    """Axes behind those that the indices count along pass through, from the updates as well."""
    x, indices, updates = node.inputs
    y = node.outputs[0]
    first = _counted(indices)
    if x.shape is None or first is None or facts.live(indices):
        return
    added = len(indices.shape) - 1 - first
    carried = {*facts.live(x), *(axis - added for axis in facts.live(updates))}
    for axis in sorted(carried):
        if axis >= first:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))
            facts.couple(facts.axis(updates, axis + added), facts.axis(y, axis))


def _counted(indices: gs.Tensor) -> int | None:
    """How many axes indices count along: the extent of their last axis."""
    count = indices.shape[-1] if indices.shape else None
    return count if isinstance(count, int) else None


def _pass(facts: Facts, x: gs.Tensor, results: Iterable[gs.Tensor], worked: set[int]) -> None:
    for axis in facts.live(x):
        if axis not in worked:
            for y in results:
                if not y.is_empty():
                    facts.couple(facts.axis(x, axis), facts.axis(y, axis))
