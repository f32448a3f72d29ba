"""Linear bypasses around the layers of a plain chain, so that it has sections to prune.

A layer j of a chain takes what the linear map before it makes, c_i, in front of the activation, to
what it makes itself, c_j (behind its BatchNorm): c_j = F(c_i), F nonlinear. With a bypass,
c_j = S c_i + F(c_i) with S linear; without F the layer is linear and may be merged with its
neighbours. S is the identity, or a 1 x 1 convolution (for rows, a product) where channels change,
of every s-th position where there are fewer.

"unchanged": S is a map with a weight and a bias that are zero, even where shapes agree, and is
learnt. Nothing else changes, so that for finite activations the sum is c_j to the last bit.
"fresh": S is the identity without weights where channels agree, else a random map that keeps the
variance. The function changes: for networks that are trained from the start, as in Guenter and
Sideris, arXiv 2406.04549.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.arrays import Array
from onnxprune.errors import UnsupportedModelError
from onnxprune.extract import all_names, known_shapes, read_by
from onnxprune.names import fresh
from onnxprune.section_search import LINEAR_OPS
from onnxprune.sections import FrozenSection

Start = Literal["unchanged", "fresh"]
Shape = tuple[int | None, ...]

MOVING = frozenset({"Flatten", "Gather", "Reshape", "Transpose"})
"""Operators behind which an index is not what it was."""


@dataclass(frozen=True)
class Bypassed:
    """A model with bypasses.

    Attributes:
        model: the model.
        added: names of the layers that have one, in the order of the graph.
        refused: the other layers behind another, and why they have none.
    """

    model: onnx.ModelProto
    added: tuple[str, ...]
    refused: tuple[FrozenSection, ...]


def with_bypasses(model: onnx.ModelProto, *, start: Start = "unchanged", seed: int = 0) -> Bypassed:
    """A copy of a model with a linear bypass around every layer of its plain chains.

    The first layer has none, and neither have those that make the outputs.

    Args:
        model: functions inlined.
        start: what the bypasses are at first.
        seed: of random ones.

    Raises:
        UnsupportedModelError: no layer can have one.
    """
    writer = _Writer(model, start, seed)
    added, refused = [], []
    for layer in _Chains(model).layers():
        reason = layer.refused()
        if reason:
            refused.append(FrozenSection(layer.name, reason))
        else:
            added.append(layer.name)
            writer.add(layer)
    if not added:
        why = "; ".join(f"{layer.name}: {layer.reason}" for layer in refused)
        raise UnsupportedModelError(
            f"no layer can have a bypass ({why or 'there is no chain of two layers'}); train "
            "without bypasses"
        )
    return Bypassed(writer.model, tuple(added), tuple(refused))


@dataclass(frozen=True)
class _Layer:
    """A layer of a chain that comes behind another.

    Attributes:
        name: of its linear map.
        convolution: whether channels are on axis 1, else they are on the last.
        source: name of what the layer before makes.
        made: name of what it makes itself.
        before: shape of the former; None where it is not known.
        after: shape of the latter.
        last: whether it makes the outputs.
        moved: whether operators between the two move positions or channels.
        kind: ONNX type of its weights.
    """

    name: str
    convolution: bool
    source: str
    made: str
    before: Shape | None
    after: Shape | None
    last: bool
    moved: bool
    kind: int

    def refused(self) -> str:
        """Why it can have no bypass; empty where it can."""
        if self.last:
            return "it makes the outputs"
        if self.moved:
            return "its input is flattened or moved, and a linear map there as large as itself"
        if self.before is None or self.after is None or len(self.before) != len(self.after):
            return "its shape is not known"
        if None in self.channels or any(None in pair for pair in self.positions):
            return "the size of its input is not known"
        if any(after > before for before, after in self.positions):  # type: ignore[operator]
            return "it makes more positions than it reads"
        if not self.convolution and any(before != after for before, after in self.positions):
            return "it makes fewer rows than it reads"
        return ""

    @property
    def channels(self) -> tuple[int | None, int | None]:
        """Channels before it and behind."""
        assert self.before is not None
        assert self.after is not None
        axis = 1 if self.convolution else -1
        return self.before[axis], self.after[axis]

    @property
    def positions(self) -> list[tuple[int | None, int | None]]:
        """Extents of the other axes, the batch left out, before it and behind."""
        assert self.before is not None
        assert self.after is not None
        axes = slice(2, None) if self.convolution else slice(1, -1)
        return list(zip(self.before[axes], self.after[axes], strict=True))


class _Chains:
    """The graph as a search for chains sees it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._maker: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        active = {value.name for value in graph.input} - self._weights.keys()
        for node in graph.node:
            read = read_by(node)
            for name in read & active:
                self._readers.setdefault(name, []).append(node)
            if len(read & active) == 1:
                self._maker |= dict.fromkeys(node.output, node)
            if read & active:
                active |= set(node.output)
        self._made = {self._behind(node): node for node in graph.node if self._is_map(node)}
        self._shapes = known_shapes(model, self._made)

    def layers(self) -> Iterator[_Layer]:
        """The layers behind another and a nonlinear operator, in the order of the graph."""
        for made, node in self._made.items():
            between: list[str] = []
            name = node.input[0]
            while name not in self._made and self._is_link(name):
                between.append(self._maker[name].op_type)
                name = self._maker[name].input[0]
            if name in self._made and self._is_link(name) and not LINEAR_OPS.issuperset(between):
                yield _Layer(
                    node.name or made,
                    node.op_type == "Conv",
                    name,
                    made,
                    self._shapes.get(name),
                    self._shapes.get(made),
                    not self._feeds_a_map(made),
                    not MOVING.isdisjoint(between)
                    or (self._made[name].op_type == "Conv") != (node.op_type == "Conv"),
                    self._weights[node.input[1]],
                )

    def _is_map(self, node: onnx.NodeProto) -> bool:
        """Whether a node multiplies an activation by a weight."""
        return (
            node.op_type in ("Conv", "Gemm", "MatMul")
            and node.input[1] in self._weights
            and node.output[0] in self._maker
        )

    def _is_link(self, name: str) -> bool:
        """Whether a tensor is made of one activation, and one node reads it."""
        alone = len(self._readers.get(name, [])) == 1 and name not in self._outputs
        return name in self._maker and alone

    def _behind(self, node: onnx.NodeProto) -> str:
        """What a linear map makes together with the bias and the BatchNorm behind it."""
        made = str(node.output[0])
        while self._is_link(made):
            (reader,) = self._readers[made]
            others = set(reader.input) - {made}
            if (
                reader.op_type not in ("Add", "BatchNormalization")
                or not others <= self._weights.keys()
            ):
                break
            made = str(reader.output[0])
        return made

    def _feeds_a_map(self, name: str) -> bool:
        """Whether another linear map comes behind a tensor."""
        pending, seen = [name], {name}
        while pending:
            for node in self._readers.get(pending.pop(), []):
                if self._is_map(node):
                    return True
                pending += [made for made in node.output if made not in seen]
                seen.update(node.output)
        return False


class _Writer:
    """Adds bypasses to a copy of a model."""

    def __init__(self, model: onnx.ModelProto, start: Start, seed: int) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._start = start
        self._random = np.random.default_rng(seed)
        self._names = set(all_names(model.graph))
        self._sums: dict[str, str] = {}

    def add(self, layer: _Layer) -> None:
        """Add S, and the sum of S c_i and what the layer makes, which its readers now read."""
        graph = self.model.graph
        total = self._new(f"{layer.made}/sum")
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == layer.made:
                    node.input[place] = total
        nodes, skip = self._skip(layer, self._sums.get(layer.source, layer.source))
        nodes.append(helper.make_node("Add", [skip, layer.made], [total], f"{layer.name}/join"))
        self._sums[layer.made] = total
        behind = next(i for i, node in enumerate(graph.node) if layer.made in node.output) + 1
        for offset, node in enumerate(nodes):
            graph.node.insert(behind + offset, node)

    def _skip(self, layer: _Layer, source: str) -> tuple[list[onnx.NodeProto], str]:
        """The nodes of S, and the name of what they make."""
        before, after = layer.channels
        learnt = before != after or self._start == "unchanged"
        windows = [_window(*pair) for pair in layer.positions] if layer.convolution else []
        strides = [window.stride for window in windows]
        nodes = []
        if any(window.cropped for window in windows) or (not learnt and set(strides) - {1}):
            steps = [1] * len(strides) if learnt else strides
            nodes.append(self._slice(layer, source, windows, steps))
            source = nodes[-1].output[0]
        if learnt:
            nodes += self._map(layer, source, strides)
            source = nodes[-1].output[0]
        return nodes, source

    def _slice(
        self, layer: _Layer, source: str, windows: Sequence[_Window], steps: Sequence[int]
    ) -> onnx.NodeProto:
        values = {
            "starts": [window.begin for window in windows],
            "ends": [window.end for window in windows],
            "axes": list(range(2, 2 + len(windows))),
            "steps": list(steps),
        }
        names = [
            self._weight(f"{layer.name}.bypass.{what}", np.array(value, np.int64))
            for what, value in values.items()
        ]
        made = self._new(f"{layer.made}/places")
        return helper.make_node("Slice", [source, *names], [made], f"{layer.name}/places")

    def _map(self, layer: _Layer, source: str, strides: Sequence[int]) -> list[onnx.NodeProto]:
        """S as a linear map: one node, or a MatMul and the addition of its bias."""
        before, after = layer.channels
        assert before is not None
        assert after is not None
        values = np.zeros((after, before))
        if self._start == "fresh":
            values = self._random.normal(scale=before**-0.5, size=values.shape)
        dtype = helper.tensor_dtype_to_np_dtype(layer.kind)
        name, made = f"{layer.name}/bypass", self._new(f"{layer.made}/bypass")
        bias = self._weight(f"{layer.name}.bypass.bias", np.zeros(after, dtype))
        shape = values.shape + (1,) * len(strides)
        values = values.reshape(shape) if layer.convolution else values.T
        weight = self._weight(f"{layer.name}.bypass.weight", values.astype(dtype))
        if layer.convolution:
            read = [source, weight, bias]
            return [helper.make_node("Conv", read, [made], name, strides=strides)]
        product = self._new(f"{made}/product")
        return [
            helper.make_node("MatMul", [source, weight], [product], name),
            helper.make_node("Add", [product, bias], [made], f"{name}/bias"),
        ]

    def _weight(self, name: str, values: Array) -> str:
        name = self._new(name)
        self.model.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(values), name)
        )
        return name

    def _new(self, name: str) -> str:
        return fresh(name, self._names)


@dataclass(frozen=True)
class _Window:
    """Which positions of an axis a bypass reads.

    Attributes:
        begin: the first.
        end: behind the last.
        stride: every how many.
        cropped: whether some have to be cut off for that.
    """

    begin: int
    end: int
    stride: int
    cropped: bool


def _window(before: int | None, after: int | None) -> _Window:
    """Every so many positions from the first on if that makes as many as asked, or the middle."""
    assert before is not None
    assert after is not None
    stride = before // after
    if (before - 1) // stride + 1 == after:
        return _Window(0, before, stride, cropped=False)
    length = (after - 1) * stride + 1
    begin = (before - length) // 2
    return _Window(begin, begin + length, stride, cropped=True)
