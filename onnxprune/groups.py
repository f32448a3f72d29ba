"""Channel groups: what must be kept or removed together, found by walking the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.components import Components
from onnxprune.concrete import batch_known
from onnxprune.errors import UnsupportedModelError
from onnxprune.linear_map import LinearMap
from onnxprune.model import import_graph
from onnxprune.network import FROZEN, ChannelGroup, FrozenChannels, Network
from onnxprune.partition import Cell, merge_balanced, same_axes
from onnxprune.recurrent_map import RECURRENT_OPS
from onnxprune.rules import Facts, find_rule
from onnxprune.rules.registry import Rule


def find_groups(model: onnx.ModelProto) -> Network:
    """The channel groups of a canonical model.

    Args:
        model: a model in canonical form, with inferred shapes.
    """
    graph = import_graph(model)
    graph.toposort()
    with batch_known(graph, model):
        facts = _walk(graph)
    components = facts.components()
    reasons = dict(components.reasons)
    prunable = _prunable(facts, components, reasons)
    cells = same_axes([slots for _, _, slots in facts.axes()], components, prunable)
    return _network(graph, facts, components, merge_balanced(components, cells, reasons), reasons)


def _walk(graph: gs.Graph) -> Facts:
    """Apply every node's rule, then freeze each axis that some node or interface leaves out.

    Raises:
        UnsupportedModelError: what a node reads cannot be what its operator needs.
    """
    facts = Facts(opset=graph.opset)
    touched: list[set[tuple[int, int]]] = []
    for node in graph.nodes:
        facts.touched = set()
        rule = find_rule(node)
        if rule is not None:
            _applied(rule, node, facts)
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


def _applied(rule: Rule, node: gs.Node, facts: Facts) -> None:
    try:
        rule(node, facts)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"node '{node.name}' ({node.op}): what it reads has shapes that it cannot work on "
            f"({error}); run the model once, and if it runs report this as a fault"
        ) from error


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
        made[components.on(facts.axis(linear_map.y, linear_map.y_axis))] = True
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
        number[cell.channels] = total + cell.units
        group_of[cell.channels] = index
        total += cell.parts.size
    numbers = _Numbers(components, number, total)
    channel_of = {(id(tensor), axis): numbers.of(slots) for tensor, axis, slots in facts.axes()}
    made = {m.name: facts.axis(m.y, m.y_axis) for m in facts.producers}
    consumers = _by_weight(facts.consumers)
    read = {m.name: facts.axis(m.x, m.x_axis) for m in consumers}
    summed = {c.name: facts.axis(c.node.inputs[0], c.a_axis) for c in facts.contractions}
    makers, readers, summers = (
        _maps_by_group({name: components.on(s) for name, s in maps.items()}, group_of, len(cells))
        for maps in (made, read, summed)
    )
    groups = [
        ChannelGroup(name, np.unique(number[cell.channels]), cell.parts, *map(tuple, maps))
        for name, cell, *maps in zip(
            _group_names(makers), cells, makers, readers, summers, strict=True
        )
    ]
    frozen = [
        _frozen_channels(name, components.label[slots][numbers.of(slots) == FROZEN], slots, reasons)
        for name, slots in made.items()
        if not slots.size or FROZEN in numbers.of(slots)
    ]
    return Network(
        graph,
        tuple(groups),
        (*frozen, *_unexplained(graph, set(made))),
        {m.name: m for m in facts.producers},
        {m.name: m for m in consumers},
        {c.name: c for c in facts.contractions},
        channel_of,
        numbers.products,
    )


def _by_weight(consumers: list[LinearMap]) -> list[LinearMap]:
    """One map for every weight, those of other nodes that multiply by it as its twins."""
    sharers: dict[int, list[LinearMap]] = {}
    for linear_map in consumers:
        sharers.setdefault(id(linear_map.weight), []).append(linear_map)
    return [replace(first, twins=tuple(twins)) for first, *twins in sharers.values()]


class _Numbers:
    """Gives components their network-wide channels.

    Args:
        components: the components.
        number: the channel of every component that is one, or FROZEN.
        total: how many of them are numbered.
    """

    def __init__(self, components: Components, number: IndexArray, total: int) -> None:
        self._label = components.label
        self._number = number.copy()
        needed: dict[tuple[int, ...], int] = {}
        for component in components.factors:
            follows = [int(number[c]) for c in components.channels(component)]
            alive = tuple(sorted(channel for channel in follows if channel != FROZEN))
            if len(alive) > 1:
                self._number[component] = total + needed.setdefault(alive, len(needed))
            elif alive:
                self._number[component] = alive[0]
        width = max(map(len, needed), default=1)
        self.products = np.full((len(needed), width), FROZEN, np.int64)
        for channels, row in needed.items():
            self.products[row, : len(channels)] = channels

    def of(self, slots: IndexArray) -> IndexArray:
        """The channel of every slot, or FROZEN."""
        return self._number[self._label[slots]]


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
        elif node.op in ("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", *RECURRENT_OPS):
            reason = "its weights are shared or not constant, or a shape is not known"
        else:
            continue
        yield FrozenChannels(node.name, 0, 0, reason)


def _frozen_channels(
    producer: str, blocked: IndexArray, slots: IndexArray, reasons: dict[int, str]
) -> FrozenChannels:
    if not slots.size:
        return FrozenChannels(producer, 0, 0, "its number of channels is not known")
    counted = Counter(reasons.get(int(c), "nothing known") for c in blocked)
    return FrozenChannels(producer, blocked.size, slots.size, counted.most_common(1)[0][0])
