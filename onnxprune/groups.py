"""Channel groups: what must be kept or removed together, found by walking the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.coupling import Components
from onnxprune.linear_map import LinearMap
from onnxprune.model import import_graph
from onnxprune.partition import Cell, merge_balanced, same_axes
from onnxprune.rules import Facts, find_rule

FROZEN = -1
"""Stands for a channel that cannot be cut, where a channel index is expected."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that lie on the same axes and compete with each other.

    Attributes:
        name: name of the first node that makes them.
        channels: network-wide indices of its channels, shape (units,), in axis order.
        parts: balanced part of every unit, shape (units,); all parts keep equal counts.
        producers: names of the linear maps that make the channels.
        consumers: names of the linear maps that read them.
    """

    name: str
    channels: IndexArray
    parts: IndexArray
    producers: tuple[str, ...]
    consumers: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of units."""
        return int(self.channels.size)

    @property
    def part_count(self) -> int:
        """Number of balanced parts."""
        return int(self.parts.max()) + 1


@dataclass(frozen=True)
class FrozenChannels:
    """Channels of one producer that cannot be cut, and why.

    Attributes:
        producer: name of the linear map that makes them.
        frozen: how many of its channels are frozen.
        size: how many it makes in all.
        reason: why (of most of them).
    """

    producer: str
    frozen: int
    size: int
    reason: str


@dataclass(frozen=True)
class Network:
    """A canonical model with its channels.

    Attributes:
        graph: the graphsurgeon graph of the canonical model.
        groups: the channel groups that can be cut.
        frozen: producers with channels that cannot be.
        producers: every linear map that makes channels, by name.
        consumers: every linear map that can be refitted, by name.
        channel_of: (tensor identity, axis) -> network-wide channel of every index, or FROZEN.
    """

    graph: gs.Graph
    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenChannels, ...]
    producers: dict[str, LinearMap]
    consumers: dict[str, LinearMap]
    channel_of: dict[tuple[int, int], IndexArray] = field(repr=False)

    def channels(self, tensor: gs.Tensor, axis: int) -> IndexArray:
        """The network-wide channel of every index of an axis, shape (extent,), or FROZEN."""
        known = self.channel_of.get((id(tensor), axis))
        if known is not None and known.size:
            return known
        extent = tensor.shape[axis] if tensor.shape is not None else 0
        return np.full(extent if isinstance(extent, int) else 0, FROZEN, np.int64)


def find_groups(model: onnx.ModelProto) -> Network:
    """The channel groups of a canonical model.

    Args:
        model: a model in canonical form, with inferred shapes.
    """
    graph = import_graph(model)
    graph.toposort()
    facts = _walk(graph)
    components = facts.components()
    reasons = dict(components.reasons)
    prunable = _prunable(facts, components, reasons)
    cells = same_axes([slots for _, _, slots in facts.axes()], components, prunable)
    return _network(graph, facts, components, merge_balanced(components, cells, reasons), reasons)


def _walk(graph: gs.Graph) -> Facts:
    """Apply every node's rule, then freeze each axis that some node or interface leaves out."""
    facts = Facts(opset=graph.opset)
    touched: list[set[tuple[int, int]]] = []
    for node in graph.nodes:
        facts.touched = set()
        rule = find_rule(node)
        if rule is not None:
            rule(node, facts)
        touched.append(facts.touched)
    for tensor in graph.outputs:
        _freeze_all(facts, tensor, f"graph output '{tensor.name}'")
    for tensor in graph.inputs:
        _freeze_all(facts, tensor, f"graph input '{tensor.name}'")
    for node, known in zip(graph.nodes, touched, strict=True):
        for tensor in _tensors_of(node):
            for axis in facts.live(tensor):
                if (id(tensor), axis) not in known:
                    facts.freeze(facts.axis(tensor, axis), _left_out(node, tensor, axis))
    return facts


def _freeze_all(facts: Facts, tensor: gs.Tensor, reason: str) -> None:
    for axis in facts.live(tensor):
        facts.freeze(facts.axis(tensor, axis), reason)


def _tensors_of(node: gs.Node) -> Iterator[gs.Tensor]:
    """Everything a node reads or writes, tensors captured by its subgraphs included."""
    yield from node.inputs
    yield from node.outputs
    for subgraph in node.subgraphs(recursive=True):
        yield from subgraph.tensors().values()  # its outputs included


def _left_out(node: gs.Node, tensor: gs.Tensor, axis: int) -> str:
    if find_rule(node) is None:
        return f"no channel rule for {node.op} ('{node.name}')"
    return f"{node.op} '{node.name}' does not carry axis {axis} of '{tensor.name}'"


def _prunable(facts: Facts, components: Components, reasons: dict[int, str]) -> IndexArray:
    """Channels that some linear map makes and nothing freezes."""
    made = np.zeros(components.count, np.bool_)
    for linear_map in facts.producers:
        slots = facts.axis(linear_map.node.outputs[0], linear_map.y_axis)
        made[components.label[slots]] = True
    made[list(reasons)] = False
    return np.flatnonzero(made)


def _network(
    graph: gs.Graph,
    facts: Facts,
    components: Components,
    cells: list[Cell],
    reasons: dict[int, str],
) -> Network:
    """Number the channels that are left, name the groups and list the frozen producers."""
    number = np.full(components.count, FROZEN, np.int64)
    group_of = np.full(components.count, FROZEN, np.int64)
    total = 0
    for index, cell in enumerate(cells):
        number[cell.channels] = np.arange(total, total + cell.channels.size)
        group_of[cell.channels] = index
        total += cell.channels.size
    label = components.label
    channel_of = {(id(tensor), axis): number[label[slots]] for tensor, axis, slots in facts.axes()}
    made = {m.name: label[facts.axis(m.node.outputs[0], m.y_axis)] for m in facts.producers}
    read = {m.name: label[facts.axis(m.node.inputs[0], m.x_axis)] for m in facts.consumers}
    makers = _maps_by_group(made, group_of, len(cells))
    readers = _maps_by_group(read, group_of, len(cells))
    groups = [
        ChannelGroup(name, number[cell.channels], cell.parts, tuple(producers), tuple(consumers))
        for name, cell, producers, consumers in zip(
            _group_names(makers), cells, makers, readers, strict=True
        )
    ]
    frozen = [
        _frozen_channels(name, channels[group_of[channels] == FROZEN], channels.size, reasons)
        for name, channels in made.items()
        if not channels.size or FROZEN in group_of[channels]
    ]
    return Network(
        graph,
        tuple(groups),
        (*frozen, *_unexplained(graph, set(made))),
        {m.name: m for m in facts.producers},
        {m.name: m for m in facts.consumers},
        channel_of,
    )


def _maps_by_group(
    channels_of: dict[str, IndexArray], group_of: IndexArray, count: int
) -> list[list[str]]:
    """For every group, the names of the linear maps that have some of its channels."""
    names: list[list[str]] = [[] for _ in range(count)]
    for name, channels in channels_of.items():
        for index in np.unique(group_of[channels]):
            if index != FROZEN:
                names[index].append(name)
    return names


def _group_names(makers: list[list[str]]) -> list[str]:
    """A group is called after the first node that makes it; later ones get a number."""
    taken: Counter[str] = Counter()
    names = []
    for producers in makers:
        base = producers[0]
        taken[base] += 1
        names.append(base if taken[base] == 1 else f"{base}#{taken[base]}")
    return names


def _unexplained(graph: gs.Graph, known: set[str]) -> Iterator[FrozenChannels]:
    """Nodes with weights that no rule made a producer of, and why."""
    for node in graph.nodes:
        weights = [t for t in node.inputs if isinstance(t, gs.Constant) and len(t.shape) > 1]
        if node.name in known or not (weights or any(True for _ in node.subgraphs())):
            continue
        if find_rule(node) is None:
            reason = f"no channel rule for {node.op} ('{node.name}')"
        elif node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            reason = "its weights are shared or not constant, or a shape is not known"
        else:
            continue
        yield FrozenChannels(node.name, 0, 0, reason)


def _frozen_channels(
    producer: str, blocked: IndexArray, size: int, reasons: dict[int, str]
) -> FrozenChannels:
    if not size:
        return FrozenChannels(producer, 0, 0, "its number of channels is not known")
    counted = Counter(reasons.get(int(c), "nothing known") for c in blocked)
    return FrozenChannels(producer, int(blocked.size), size, counted.most_common(1)[0][0])
