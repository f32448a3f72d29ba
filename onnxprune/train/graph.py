"""The graph of a model as the training half has it: nodes, and constants as tensors of torch.

Exporters write equal constants once. A scale of ones or a shift of zeros that several layers of a
fresh network share is therefore untied: each layer trains its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from onnxprune.canonical import OLDEST_OPSET
from onnxprune.errors import UnsupportedModelError
from onnxprune.names import fresh
from onnxprune.stand_ins import key_of, opset_of
from onnxprune.train.operators import Mode, Node, find_operator
from onnxprune.train.operators.registry import limit_of
from onnxprune.train.operators.types import torch_type

CONSTANT = "Constant"
SCALARS = ("value_float", "value_int", "value_floats", "value_ints")


@dataclass(frozen=True)
class Untied:
    """A constant of its own for one reader of a shared one.

    Attributes:
        source: the shared constant in the file.
        node: place of the node in the file's graph: its reader, or the Identity that made it.
        place: which input of the reader it is; None for an Identity.
    """

    source: str
    node: int
    place: int | None


@dataclass
class Graph:
    """A model's graph.

    Attributes:
        inputs: names of the inputs, those that have a default left out.
        outputs: names of the outputs.
        nodes: in an order in which they can be computed.
        constants: name -> value.
        own: names of constants that are in the file itself, not in one of its functions.
        untied: name -> where a constant comes from that the file shares.
        mode: what all nodes look at.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: list[Node]
    constants: dict[str, Tensor]
    own: frozenset[str]
    mode: Mode
    untied: dict[str, Untied] = field(default_factory=dict)


def read_graph(model: onnx.ModelProto) -> Graph:
    """The graph of a model, its functions inlined; the model is left as it is.

    Raises:
        UnsupportedModelError: an operator, a type or a form of weights is not known; the message
            names it and a node.
    """
    opset = opset_of(model)
    if opset < OLDEST_OPSET and any(node.domain in ("", "ai.onnx") for node in model.graph.node):
        raise UnsupportedModelError(
            f"the model uses opset {opset}, the oldest that can be trained is {OLDEST_OPSET}: "
            "convert it with onnx.version_converter.convert_version first"
        )
    own = {tensor.name for tensor in model.graph.initializer}
    own |= {node.output[0] for node in model.graph.node if node.op_type == CONSTANT}
    inlined = onnx.inliner.inline_local_functions(model) if model.functions else model
    _refuse_unknown(inlined.graph)
    mode = Mode()
    constants = dict(_initializers(inlined.graph))
    names = {name for node in inlined.graph.node for name in (*node.input, *node.output)}
    names |= set(constants)
    nodes, places = [], []
    for place, proto in enumerate(inlined.graph.node):
        if proto.op_type == CONSTANT and not proto.domain:
            constants[proto.output[0]] = _constant(proto)
        else:
            nodes.append(_node(proto, place, opset, mode))
            places.append(place)
    named = [replace(node, name=name) for node, name in zip(nodes, _unique(nodes), strict=True)]
    _refuse_limits(named)
    graph = Graph(
        tuple(value.name for value in inlined.graph.input if value.name not in constants),
        tuple(value.name for value in inlined.graph.output),
        named,
        constants,
        frozenset(own),
        mode,
    )
    if not model.functions:
        _untie(graph, places, names)
    return graph


def _refuse_unknown(graph: onnx.GraphProto) -> None:
    unknown: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in graph.node:
        if node.op_type != CONSTANT and find_operator(*key_of(node)) is None:
            unknown[key_of(node)].append(node.name or node.output[0])
    if unknown:
        found = "; ".join(
            f"{domain + '.' if domain else ''}{op} ('{names[0]}'"
            + (f" and {len(names) - 1} more)" if len(names) > 1 else ")")
            for (domain, op), names in sorted(unknown.items())
        )
        raise UnsupportedModelError(
            f"the model cannot be trained: no gradient is known here for {found}; "
            "train it where it comes from, or export it without these operators"
        )
    if graph.sparse_initializer:
        raise UnsupportedModelError(
            f"'{graph.sparse_initializer[0].values.name}' is a sparse initializer, which cannot be "
            "trained: write it as a dense one"
        )


def _refuse_limits(nodes: list[Node]) -> None:
    for node in nodes:
        reason = limit_of(node)
        if reason is not None:
            raise UnsupportedModelError(
                f"the model cannot be trained: {node.op} '{node.name}' is of a form that is not "
                f"known here ({reason})"
            )


def _initializers(graph: onnx.GraphProto) -> Iterator[tuple[str, Tensor]]:
    for tensor in graph.initializer:
        yield tensor.name, to_torch(tensor, tensor.name)


def to_torch(tensor: onnx.TensorProto, where: str) -> Tensor:
    """A tensor of a model, half precision widened.

    Raises:
        UnsupportedModelError: its type has no form in torch, or its data lies in a file that has
            not been read.
    """
    kind = torch_type(tensor.data_type, where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise UnsupportedModelError(
            f"the data of '{where}' lies in a file that has not been read: "
            "load the model with onnxprune.model.load"
        )
    values = numpy_helper.to_array(tensor)
    if kind.is_floating_point and values.dtype.itemsize < np.dtype(np.float32).itemsize:
        values = values.astype(np.float32)
    elif values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values = values.astype(np.int64)
    return torch.tensor(values).to(kind)


def _constant(node: onnx.NodeProto) -> Tensor:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return to_torch(attribute.t, node.output[0])
    if attribute.name in SCALARS:
        kind = torch.float32 if "float" in attribute.name else torch.int64
        return torch.tensor(helper.get_attribute_value(attribute), dtype=kind)
    raise UnsupportedModelError(
        f"the constant '{node.output[0]}' is given as {attribute.name}, which cannot be trained "
        "through"
    )


def _node(proto: onnx.NodeProto, place: int, opset: int, mode: Mode) -> Node:
    domain, op = key_of(proto)
    return Node(
        proto.name,
        op,
        domain,
        tuple(proto.input),
        tuple(proto.output),
        {a.name: _value(a, proto.name or proto.output[0]) for a in proto.attribute},
        opset,
        mode,
    )


def _value(attribute: onnx.AttributeProto, where: str) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return to_torch(value, where)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (list, tuple)):
        return [part.decode() if isinstance(part, bytes) else part for part in value]
    return value


def _unique(nodes: list[Node]) -> list[str]:
    """A name for every node that no other has: its own, or one after its operator and place."""
    taken = {node.name for node in nodes}
    seen: set[str] = set()
    names = []
    for place, node in enumerate(nodes):
        new = not node.name or node.name in seen
        name = fresh(f"{node.name or node.op}_{place}", taken) if new else node.name
        seen.add(name)
        names.append(name)
    return names


def _untie(graph: Graph, places: list[int], names: set[str]) -> None:
    """Give every layer its own scale of ones and shift of zeros.

    Args:
        graph: it is changed.
        places: where each of its nodes stands in the file.
        names: of all tensors; new ones are entered.
    """
    kept, kept_places = [], []
    for node, place in zip(graph.nodes, places, strict=True):
        source = graph.constants.get(node.inputs[0]) if node.op == "Identity" else None
        if source is not None and _is_fresh(source) and node.outputs[0] not in graph.outputs:
            graph.constants[node.outputs[0]] = source.clone()
            graph.untied[node.outputs[0]] = Untied(node.inputs[0], place, None)
            continue
        kept.append(node)
        kept_places.append(place)
    readers = Counter(name for node in kept for name in node.inputs)
    taken: set[str] = set()
    for index, (node, place) in enumerate(zip(kept, kept_places, strict=True)):
        operator = find_operator(node.domain, node.op)
        assert operator is not None
        inputs = list(node.inputs)
        for slot, name in enumerate(inputs):
            layer = slot in operator.weights or slot in operator.statistics
            if not layer or readers[name] < 2 or not _is_fresh(graph.constants.get(name)):
                continue
            if name not in taken:  # the first reader keeps it
                taken.add(name)
                continue
            inputs[slot] = fresh(f"{name}/{node.name}", names)
            graph.constants[inputs[slot]] = graph.constants[name].clone()
            graph.untied[inputs[slot]] = Untied(name, place, slot)
        kept[index] = replace(node, inputs=tuple(inputs))
    graph.nodes[:] = kept


def _is_fresh(value: Tensor | None) -> bool:
    """Whether a constant is a vector that no training has touched: zeros or ones."""
    if value is None or value.dim() != 1 or not value.is_floating_point() or value.numel() < 1:
        return False
    first = float(value[0])
    return first in (0.0, 1.0) and bool((value == first).all())
