"""Merges the linear skips that cut sections leave with the linear layers before them.

A skip S is a 1 x 1 convolution, a product, or every s-th position. What it reads, t, is a linear
layer, or a sum of them: W_1 x_1 + b_1 + W_2 x_2 + ... If nothing else reads t, S t + c is
(S W_1) x_1 + (S W_2) x_2 + ... with S b_1 + ... + c as the bias: the skip is gone, with the depth
it stood for. BatchNorms behind the layers are folded into them by their running statistics, so
this is for networks that have been trained.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.arrays import Array, Vector
from onnxprune.extract import all_names, known_shapes, read_by
from onnxprune.names import fresh
from onnxprune.train.gated_sections import GatedSection
from onnxprune.train.section_cut import sweep, used


def own_skips(model: onnx.ModelProto, sections: Iterable[GatedSection]) -> list[str]:
    """Names of the summands that are skips of these sections and nothing else.

    Args:
        model: the model before anything was cut.
        sections: some of its sections.
    """
    reads = Counter(name for node in model.graph.node for name in read_by(node))
    joins = {name: node for node in model.graph.node for name in node.output}
    skips = [joins[section.total].input[1 - section.operand] for section in sections]
    return [name for name in skips if reads[name] == 1]


def merge_skips(model: onnx.ModelProto, skips: Iterable[str]) -> onnx.ModelProto:
    """A copy of a model without those of its linear skips that cost more than merging them.

    Args:
        model: functions inlined.
        skips: what their nodes make; those that are gone are passed over.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    wanted = set(skips)
    for name in [name for node in merged.graph.node for name in node.output if name in wanted]:
        before = used(merged.graph)
        _Merger(merged).merge(name)
        sweep(merged, before)
    return merged


@dataclass(frozen=True)
class _Layer:
    """A linear layer with all that scales and shifts its channels.

    Attributes:
        nodes: the linear node, and those behind it.
        source: what it reads.
        weight: shape (outputs, inputs, *kernel), the scales included.
        bias: shape (outputs,).
        strides: steps between the positions it reads.
    """

    nodes: tuple[onnx.NodeProto, ...]
    source: str
    weight: Array
    bias: Vector
    strides: tuple[int, ...]

    @property
    def cost(self) -> int:
        """Multiply-accumulates for one output of one position."""
        return math.prod(self.weight.shape[1:])


@dataclass(frozen=True)
class _Skip:
    """A linear map of single positions.

    Attributes:
        nodes: its nodes, in order.
        source: what it reads.
        weight: shape (outputs, inputs); None for the identity.
        bias: shape (outputs,).
        strides: it makes every so many positions of every axis.
    """

    nodes: tuple[onnx.NodeProto, ...]
    source: str
    weight: Array | None
    bias: Vector
    strides: tuple[int, ...]


class _Merger:
    """One look at a model, and one change of it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._shapes = known_shapes(model, {n for node in model.graph.node for n in node.output})
        self._maker = {name: node for node in model.graph.node for name in node.output if name}
        self._reads = Counter(name for node in model.graph.node for name in read_by(node))
        self._reads.update(value.name for value in model.graph.output)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def merge(self, name: str) -> None:
        """Merge the skip that makes a tensor, if that is possible and takes no more MACs."""
        skip = self._skip(name)
        if skip is None or self._reads[skip.source] != 1:
            return
        layers = self._summands(skip.source)
        if not layers or not _pays(skip, list(layers.values())):
            return
        bias = skip.bias
        for made, layer in layers.items():
            self._write(made, layer, skip, bias)
            bias = np.zeros(())  # it is added once
        for node in skip.nodes:
            self._graph.node.remove(node)
        self._rename(skip.source, name)

    def _skip(self, name: str) -> _Skip | None:
        """The skip that makes a tensor."""
        node = self._maker.get(name)
        if node is not None and node.op_type == "Slice":
            strides = self._every(node)
            if strides is None:
                return None
            return _Skip((node,), node.input[0], None, np.zeros(()), strides)
        layer = self._layer(name)
        if layer is None or math.prod(layer.weight.shape[2:]) != 1:
            return None
        pads = _attributes(layer.nodes[0]).get("pads", [0])
        if any(pads):
            return None
        weight = layer.weight.reshape(layer.weight.shape[:2])
        return _Skip(layer.nodes, layer.source, weight, layer.bias, layer.strides)

    def _every(self, node: onnx.NodeProto) -> tuple[int, ...] | None:
        """The steps of a Slice of the spatial axes that starts at the first position."""
        if any(name not in self._weights for name in node.input[1:]) or len(node.input) < 5:
            return None
        starts, ends, axes, steps = (self._value(name).tolist() for name in node.input[1:])
        before, after = self._shapes.get(node.input[0]), self._shapes.get(node.output[0])
        if before is None or after is None or axes != list(range(2, len(before))):
            return None
        whole = all(
            before[axis] is not None and (before[axis] - 1) // step + 1 == after[axis]
            for axis, step in zip(axes, steps, strict=True)
        )
        return tuple(steps) if whole and not any(starts) and ends else None

    def _summands(self, name: str) -> dict[str, _Layer]:
        """The linear layers that a tensor is the sum of, by what they make; none if it is not."""
        layer = self._layer(name)
        if layer is not None:
            return {name: layer}
        node = self._maker.get(name)
        if node is None or node.op_type != "Add":
            return {}
        found: dict[str, _Layer] = {}
        for summand in node.input:
            own = self._summands(summand) if self._reads[summand] == 1 else {}
            if not own or self._shapes.get(summand, 0) != self._shapes.get(name, 1):
                return {}
            found |= own
        return found

    def _layer(self, name: str) -> _Layer | None:
        """The linear layer that makes a tensor."""
        nodes: list[onnx.NodeProto] = []
        scale, shift = np.ones(()), np.zeros(())
        while True:
            node = self._maker.get(name)
            if node is None or (nodes and self._reads[name] != 1):
                return None
            nodes.insert(0, node)
            affine = self._scaled(node)
            if affine is None:
                break
            name, factor, summand = affine
            scale, shift = scale * factor, shift + scale * summand
        linear = self._linear(node)
        if linear is None:
            return None
        weight, bias, strides = linear
        scale = np.broadcast_to(scale, bias.shape)
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        return _Layer(tuple(nodes), node.input[0], scaled, scale * bias + shift, strides)

    def _scaled(self, node: onnx.NodeProto) -> tuple[str, Vector, Vector] | None:
        """What a node scales and shifts by channel, by what, if that is all it does."""
        constants = [name for name in node.input if name in self._weights]
        if node.op_type == "BatchNormalization" and len(constants) == 4 and len(node.output) == 1:
            scale, shift, mean, variance = map(self._value, constants)
            factor = scale / np.sqrt(variance + _attributes(node).get("epsilon", 1e-5))
            return node.input[0], factor, shift - factor * mean
        if node.op_type == "Add" and len(constants) == 1:
            (data,) = set(node.input) - set(constants)
            summand = self._value(constants[0])
            maker = self._maker.get(data)
            if maker is not None and maker.op_type == "MatMul" and summand.ndim == 1:
                return data, np.ones(()), summand
        return None

    def _linear(self, node: onnx.NodeProto) -> tuple[Array, Vector, tuple[int, ...]] | None:
        """Weight, bias and strides of a linear node; None where it is none of a known form."""
        attributes = _attributes(node)
        if any(name not in self._weights for name in node.input[1:]) or len(node.input) < 2:
            return None
        weight = self._value(node.input[1])
        if node.op_type == "Conv":
            plain = attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
            if not plain or attributes.get("group", 1) != 1:
                return None
            strides = tuple(attributes.get("strides", [1] * (weight.ndim - 2)))
        elif node.op_type == "MatMul" and weight.ndim == 2:
            weight, strides = weight.T, ()
        elif node.op_type == "Gemm" and attributes.get("transA", 0) == 0:
            weight = weight if attributes.get("transB", 0) else weight.T
            weight, strides = attributes.get("alpha", 1.0) * weight, ()
        else:
            return None
        bias = np.zeros(len(weight))
        if len(node.input) > 2:
            bias = np.broadcast_to(self._value(node.input[2]), bias.shape)
        return weight, attributes.get("beta", 1.0) * bias, strides

    def _value(self, name: str) -> Array:
        value: Array = numpy_helper.to_array(self._weights[name])
        return value if value.dtype.kind == "i" else value.astype(np.float64)

    def _write(self, made: str, layer: _Layer, skip: _Skip, bias: Vector) -> None:
        """Put a layer with the skip behind it in the place of a layer."""
        first = layer.nodes[0]
        dtype = numpy_helper.to_array(self._weights[first.input[1]]).dtype
        weight, own = layer.weight, layer.bias
        if skip.weight is not None:
            weight, own = np.tensordot(skip.weight, weight, 1), skip.weight @ own
        own = np.broadcast_to(own + bias, (len(weight),)).astype(dtype)
        if first.op_type == "Conv":
            new = onnx.NodeProto()
            new.CopyFrom(first)
            _set(new, "strides", [a * b for a, b in zip(layer.strides, skip.strides, strict=True)])
            new.input[1:] = self._stored(first.name or made, weight.astype(dtype), own)
            new.output[:] = [made]
            added = [new]
        else:
            read = self._stored(first.name or made, weight.T.astype(dtype), own)
            added = self._rows(first.name, layer.source, read, made)
        place = list(self._graph.node).index(layer.nodes[-1])
        for offset, node in enumerate(added):
            self._graph.node.insert(place + offset, node)
        for old in layer.nodes:
            self._graph.node.remove(old)

    def _rows(self, name: str, source: str, read: list[str], made: str) -> list[onnx.NodeProto]:
        """A product and its bias."""
        if len(self._shapes.get(made, ())) == 2:
            return [helper.make_node("Gemm", [source, *read], [made], name)]
        product = fresh(f"{made}/product", set(all_names(self._graph)))
        return [
            helper.make_node("MatMul", [source, read[0]], [product], name),
            helper.make_node("Add", [product, read[1]], [made], f"{name}/bias"),
        ]

    def _stored(self, name: str, weight: Array, bias: Array) -> list[str]:
        """New initializers, by their names."""
        taken = set(all_names(self._graph))
        names = []
        for what, values in (("weight", weight), ("bias", bias)):
            names.append(fresh(f"{name}.{what}", taken))
            self._graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(values), names[-1])
            )
        return names

    def _rename(self, old: str, new: str) -> None:
        """Let the node that makes one tensor make another, and forget shapes that have changed."""
        pending, changed = [old], {old}
        while pending:
            node = next(n for n in self._graph.node if pending[-1] in n.output)
            pending.pop()
            if node.op_type == "Add" and node.input[1] not in self._weights:
                pending += node.input
                changed |= set(node.input)
        (maker,) = (node for node in self._graph.node if old in node.output)
        maker.output[:] = [new]
        for place in reversed(range(len(self._graph.value_info))):
            if self._graph.value_info[place].name in changed:
                del self._graph.value_info[place]


def _pays(skip: _Skip, layers: list[_Layer]) -> bool:
    """Whether a skip merged into these layers takes no more MACs than behind them."""
    positions, width = math.prod(skip.strides), len(layers[0].weight)
    outputs = width if skip.weight is None else len(skip.weight)
    apart = sum(layer.cost for layer in layers) * width * positions
    apart += 0 if skip.weight is None else outputs * width
    return sum(layer.cost for layer in layers) * outputs <= apart


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _set(node: onnx.NodeProto, name: str, value: list[int]) -> None:
    """Set an attribute of a node."""
    for place in reversed(range(len(node.attribute))):
        if node.attribute[place].name == name:
            del node.attribute[place]
    node.attribute.append(helper.make_attribute(name, value))
