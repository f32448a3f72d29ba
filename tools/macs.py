"""MACs of a model counted from its file, and how many of them halving every channel axis removes.

The count is independent of the package's cost model: one multiplication for every weight and
output position, from inferred shapes, or measured ones where inference knows none. Only the main
graph counts, not what If, Loop and Scan compute inside.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import onnx

from onnxprune.arrays import Feed
from onnxprune.concrete import concrete
from onnxprune.cost import tensor_shapes
from onnxprune.errors import OnnxPruneError
from onnxprune.mac_terms import LINEAR_OPS
from onnxprune.recurrent_map import RECURRENT_OPS
from onnxprune.runtime import Session

OPAQUE_OPS = ("If", "Loop", "Scan")
SHAPE_OPS = ("Shape", "Size")
"""What they read is an extent, not a value: no channel passes through."""

Shape = tuple[int, ...]


def layer_macs(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], feed: Feed | None = None
) -> dict[str, float]:
    """Name of each Conv, ConvTranspose, Gemm, MatMul and recurrent layer -> its MACs.

    Args:
        model: a model whose nodes have names of their own.
        shapes: a shape for every input.
        feed: inputs of these shapes, to measure what inference does not know.

    Returns:
        One number per layer; not-a-number where a shape is not known.
    """
    layers = [node for node in model.graph.node if node.op_type in LINEAR_OPS]
    known = tensor_shapes(concrete(model, shapes))
    wanted = {name for node in layers for name in _counted(node)}
    if feed is not None and wanted - known.keys():
        known |= _measured(model, sorted(wanted - known.keys()), feed)
    return {node.name: _macs(node, known) for node in layers}


def _measured(model: onnx.ModelProto, names: list[str], feed: Feed) -> dict[str, Shape]:
    """The shapes some tensors have in one run; none where the model does not run."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declared = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in declared)
    try:
        arrays = Session(copy, threads=1).run(feed, names)
    except OnnxPruneError:
        return {}
    return {name: tuple(array.shape) for name, array in zip(names, arrays, strict=True)}


def _counted(node: onnx.NodeProto) -> tuple[str, ...]:
    """The tensors whose shapes tell the MACs: x, W and y, or the R of a recurrent layer."""
    last = node.input[2] if node.op_type in RECURRENT_OPS else node.output[0]
    return (*node.input[:2], last)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    x, w, y = (shapes.get(name) for name in _counted(node))
    if x is None or w is None or y is None:
        return math.nan
    if node.op_type in RECURRENT_OPS:  # all of W and R at every step of every sample
        return float(math.prod(x[:2]) * (math.prod(w) + math.prod(y)))
    if node.op_type in ("Gemm", "MatMul"):
        inner = x[0] if _attribute(node, "transA", 0) else x[-1]
        return float(math.prod(y) * inner)
    positions = x if node.op_type == "ConvTranspose" else y
    return float(math.prod(positions) * math.prod(w[1:]))


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


class Flow:
    """Which layers feed which, with everything in between passed through.

    A layer is a node whose output channels are its own: a linear node, a recurrent one, an
    embedding, and one with a subgraph. Depthwise convolutions and products of two activations pass
    channels on.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self._outputs = {value.name for value in model.graph.output}
        self._maker = {name: node for node in model.graph.node for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._readers[name].append(node)

    def sources(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The layers whose channels a node reads; none where only graph inputs come in."""
        found = {}
        for tensor in self._upstream(node):
            maker = self._maker.get(tensor)
            if maker is not None and self.is_layer(maker):
                found[maker.output[0]] = maker
        return list(found.values())

    def reaches_output(self, node: onnx.NodeProto) -> bool:
        """Whether a node's channels are a graph output's, no layer in between."""
        return any(tensor in self._outputs for tensor in self._downstream(node))

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Whether a node's output channels are unrelated to those it reads."""
        if node.op_type == "Gather":
            return node.input[0] in self._weights
        if node.op_type in LINEAR_OPS:
            return not (self.is_depthwise(node) or self.is_product(node))
        return node.op_type in (*RECURRENT_OPS, *OPAQUE_OPS)

    def is_product(self, node: onnx.NodeProto) -> bool:
        """Whether a MatMul or Gemm multiplies two activations."""
        constant = any(name in self._weights for name in node.input[:2])
        return node.op_type in ("Gemm", "MatMul") and not constant

    def is_depthwise(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution treats every channel by itself."""
        weight = self._weights.get(node.input[1]) if node.op_type == "Conv" else None
        return weight is not None and weight[0] == _attribute(node, "group", 1) > 1

    def _upstream(self, node: onnx.NodeProto) -> Iterator[str]:
        """The tensors behind a node, those of the layers before it last."""

        def behind(tensor: str) -> Iterable[str]:
            maker = self._maker.get(tensor)
            passes = maker is not None and not self.is_layer(maker)
            return maker.input if passes and maker.op_type not in SHAPE_OPS else ()

        return _walk(node.input, behind)

    def _downstream(self, node: onnx.NodeProto) -> Iterator[str]:
        """The tensors before a node, up to the layers that read them."""

        def before(tensor: str) -> Iterator[str]:
            for reader in self._readers[tensor]:
                if not self.is_layer(reader) and reader.op_type not in SHAPE_OPS:
                    yield from reader.output

        return _walk(node.output, before)


def _walk(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Everything reachable, each once."""
    waiting, seen = list(start), set(start)
    while waiting:
        tensor = waiting.pop()
        yield tensor
        fresh = [name for name in step(tensor) if name and name not in seen]
        seen.update(fresh)
        waiting += fresh


def halved(flow: Flow, node: onnx.NodeProto) -> float:
    """The share of a linear node's MACs that is left when every channel axis is halved.

    Channels that come from the graph input or go to the graph output, with no layer in between,
    stay whole. Elsewhere a layer keeps half of its inputs and half of its outputs: a quarter inside
    a network, a half at its ends. A depthwise convolution keeps half, and so does a product of two
    activations, of which half of the heads go.
    """
    if flow.is_product(node):
        return 0.5
    whole_input, whole_output = not flow.sources(node), flow.reaches_output(node)
    if flow.is_depthwise(node):
        return 1.0 if whole_input or whole_output else 0.5
    return (1.0 if whole_input else 0.5) * (1.0 if whole_output else 0.5)
