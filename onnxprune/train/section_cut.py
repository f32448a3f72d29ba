"""Takes sections out of a model as it is, with its BatchNorms and everything else it has.

The pruning of channels cuts the canonical form; here training goes on with what is left, so all
that stays is left alone, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import onnx

from onnxprune.extract import read_by
from onnxprune.train.gated_sections import GatedSection

IDEMPOTENT = frozenset({"Identity", "Relu"})
"""Operators that change nothing when they are applied twice."""


def without_sections(model: onnx.ModelProto, sections: Iterable[GatedSection]) -> onnx.ModelProto:
    """A copy of a model in which sums are their skips.

    Of two equal rectifiers that then follow each other one is left.

    Args:
        model: functions inlined, as the sections were found in it or what earlier cuts left of it.
        sections: what goes; those that went with others are passed over.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    before = used(cut.graph)
    for section in sections:
        join = next((node for node in cut.graph.node if section.total in node.output), None)
        if join is not None and len(join.input) == 2:
            _bypass(cut.graph, join, section)
    sweep(cut, before)
    return cut


def _bypass(graph: onnx.GraphProto, join: onnx.NodeProto, section: GatedSection) -> None:
    """Let the readers of a sum read its skip."""
    skip = join.input[1 - section.operand]
    if _is_seen(graph, section.total):
        join.op_type = "Identity"
        join.input[:] = [skip]
        return
    graph.node.remove(join)
    _redirect(graph, section.total, skip)
    maker = next((node for node in graph.node if skip in node.output), None)
    again = [
        node
        for node in graph.node
        if skip in node.input
        and maker is not None
        and node.op_type == maker.op_type
        and node.op_type in IDEMPOTENT
        and not _is_seen(graph, node.output[0])
    ]
    for node in again:
        graph.node.remove(node)
        _redirect(graph, node.output[0], skip)


def _redirect(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _is_seen(graph: onnx.GraphProto, tensor: str) -> bool:
    """Whether a tensor is read by more than nodes: it is a result, or a subgraph captures it."""
    return any(value.name == tensor for value in graph.output) or any(
        tensor in read_by(node) - set(node.input) for node in graph.node
    )


def used(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors that the outputs need."""
    names = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if not names.isdisjoint(node.output):
            names |= read_by(node)
    return names


def sweep(model: onnx.ModelProto, before: set[str]) -> None:
    """Remove what the outputs needed before a cut and do not need behind it."""
    graph = model.graph
    needed = used(graph)
    _retain(graph.node, lambda n: before.isdisjoint(n.output) or not needed.isdisjoint(n.output))
    names = {name for node in graph.node for name in (*node.output, *read_by(node))} | needed
    gone = before - names
    weights = {tensor.name for tensor in graph.initializer}
    _retain(graph.initializer, lambda tensor: tensor.name not in gone)
    _retain(graph.sparse_initializer, lambda tensor: tensor.values.name not in gone)
    _retain(graph.quantization_annotation, lambda note: note.tensor_name not in gone)
    _retain(graph.value_info, lambda value: value.name not in gone)
    # up to IR 3 every initializer is a graph input as well
    _retain(graph.input, lambda value: value.name not in gone & weights)


def _retain(field: Any, keep: Callable[[Any], bool]) -> None:
    """Remove the elements of a repeated field that are not to be kept."""
    for place in reversed(range(len(field))):
        if not keep(field[place]):
            del field[place]
