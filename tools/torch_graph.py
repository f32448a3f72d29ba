"""A convolutional ONNX model as a torch module, so that a pruner of torch can have it, and back.

Only what plain image classifiers consist of is known, in the canonical form: BatchNormalization is
folded, so norms of filters are those of the folded ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch import nn
from torch.nn import functional

from onnxprune.arrays import Array
from onnxprune.canonical import canonicalise
from onnxprune.errors import OnnxPruneError

JOINS = ("Relu", "Clip")
"""What may stand between two convolutions that nothing else reads."""


class GraphModule(nn.Module):
    """The model's graph, evaluated node by node.

    Attributes:
        graph: the canonical graph.
        layers: Conv and Gemm nodes as modules, in the graph's order.

    Raises:
        OnnxPruneError: the model has an operator that is not known here.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.graph = gs.import_onnx(canonicalise(model)).toposort()
        unknown = {node.op for node in self.graph.nodes} - {*LAYERS, *FUNCTIONS}
        if unknown:
            raise OnnxPruneError(f"no torch form of {', '.join(sorted(unknown))}")
        weighted = [node for node in self.graph.nodes if node.op in LAYERS]
        self.layers = nn.ModuleList(LAYERS[node.op](node) for node in weighted)
        self._place = {id(node): place for place, node in enumerate(weighted)}
        last = {id(tensor): node for node in self.graph.nodes for tensor in node.inputs}
        self._done: dict[int, list[int]] = {id(node): [] for node in self.graph.nodes}
        for tensor, node in last.items():
            self._done[id(node)].append(tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first output for the one input."""
        values = {id(self.graph.inputs[0]): x}
        for node in self.graph.nodes:
            inputs = [values[id(t)] for t in node.inputs if isinstance(t, gs.Variable) and t.name]
            if id(node) in self._place:
                result = self.layers[self._place[id(node)]](*inputs)
            else:
                result = FUNCTIONS[node.op](node, *inputs)
            results = result if len(node.outputs) > 1 else [result]
            values.update(zip(map(id, node.outputs), results, strict=True))
            for tensor in self._done[id(node)]:
                values.pop(tensor, None)
        return values[id(self.graph.outputs[0])]

    def convolutions(self) -> Iterator[tuple[gs.Node, nn.Module]]:
        """Every convolution with its module, in the graph's order."""
        for node in self.graph.nodes:
            if node.op == "Conv":
                yield node, self.layers[self._place[id(node)]]

    def joined(self) -> Iterator[nn.Module]:
        """The convolutions whose channels are added, padded or sliced somewhere, not only read."""
        for node, layer in self.convolutions():
            if not all(reader.op == "Conv" for reader in _readers(node)):
                yield layer

    @property
    def pads_channels(self) -> bool:
        """Whether shortcuts gain channels of zeros, which a pruner may not follow."""
        return any(node.op == "Pad" for node in self.graph.nodes)


def to_onnx(module: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
    """The module as torch exports it, with a dynamic batch."""
    file = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (sample,),
        file,
        input_names=["input"],
        output_names=["scores"],
        dynamic_axes={"input": {0: "batch"}, "scores": {0: "batch"}},
        dynamo=False,
    )
    return onnx.load_from_string(file.getvalue())


def _readers(node: gs.Node) -> Iterator[gs.Node]:
    """The nodes that read a node's output, activations passed through."""
    for reader in node.outputs[0].outputs:
        if reader.op in JOINS:
            yield from _readers(reader)
        else:
            yield reader


def _conv(node: gs.Node) -> nn.Module:
    weight = node.inputs[1].values
    group, strides = node.attrs.get("group", 1), node.attrs.get("strides", [1, 1])
    begin, end = np.split(np.array(node.attrs.get("pads", [0, 0, 0, 0])), 2)
    even = bool((begin == end).all())
    layer = nn.Conv2d(
        weight.shape[1] * group,
        weight.shape[0],
        weight.shape[2:],
        stride=tuple(strides),
        padding=tuple(begin.tolist()) if even else 0,
        dilation=tuple(node.attrs.get("dilations", [1, 1])),
        groups=group,
    )
    _fill(layer, weight, node)
    if even:
        return layer
    sides = (int(begin[1]), int(end[1]), int(begin[0]), int(end[0]))
    return nn.Sequential(nn.ZeroPad2d(sides), layer)


def _gemm(node: gs.Node) -> nn.Module:
    weight = node.inputs[1].values
    weight = weight if node.attrs.get("transB", 0) else weight.T
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    _fill(layer, weight, node)
    return layer


def _matmul(node: gs.Node) -> nn.Module:
    weight = node.inputs[1].values.T
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer


def _fill(layer: nn.Conv2d | nn.Linear, weight: Array, node: gs.Node) -> None:
    bias = node.inputs[2].values if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias.reshape(-1)))


def _max_pool(node: gs.Node, x: torch.Tensor) -> torch.Tensor:
    begin, end = np.split(np.array(node.attrs.get("pads", [0, 0, 0, 0])), 2)
    sides = (int(begin[1]), int(end[1]), int(begin[0]), int(end[0]))
    padded = functional.pad(x, sides, value=-torch.inf) if any(sides) else x
    return functional.max_pool2d(padded, node.attrs["kernel_shape"], node.attrs["strides"])


def _slice(node: gs.Node, x: torch.Tensor) -> torch.Tensor:
    starts, ends, axes, steps = (tensor.values.tolist() for tensor in node.inputs[1:5])
    parts = [slice(None)] * x.dim()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        parts[axis] = slice(start, min(end, x.shape[axis]), step)
    return x[tuple(parts)]


def _pad(node: gs.Node, x: torch.Tensor) -> torch.Tensor:
    begin, end = np.split(node.inputs[1].values, 2)
    sides = [int(side) for axis in reversed(range(x.dim())) for side in (begin[axis], end[axis])]
    return functional.pad(x, sides)


def _add(node: gs.Node, *terms: torch.Tensor) -> torch.Tensor:
    constants = [t for t in node.inputs if isinstance(t, gs.Constant)]
    return sum((torch.from_numpy(t.values) for t in constants), start=sum(terms))


def _gather(node: gs.Node, x: torch.Tensor) -> torch.Tensor:
    indices = torch.from_numpy(node.inputs[1].values.astype(np.int64)).to(x.device)
    return x.index_select(node.attrs.get("axis", 0), indices)


def _clip(node: gs.Node, x: torch.Tensor) -> torch.Tensor:
    low, high = (tensor.values.item() for tensor in node.inputs[1:3])
    return torch.clamp(x, low, high)


def _split(node: gs.Node, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    axis = node.attrs.get("axis", 0)
    sizes = node.inputs[1].values.tolist() if len(node.inputs) > 1 else node.attrs.get("split")
    if sizes is None:
        return torch.chunk(x, len(node.outputs), axis)
    return torch.split(x, sizes, axis)


LAYERS: dict[str, Callable[[gs.Node], nn.Module]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Relu": lambda _, x: torch.relu(x),
    "Clip": _clip,
    "Add": _add,
    "Concat": lambda node, *parts: torch.cat(parts, node.attrs["axis"]),
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "ReduceMean": lambda node, x: x.mean(tuple(node.attrs["axes"]), bool(node.attrs["keepdims"])),
    "Flatten": lambda _, x: torch.flatten(x, 1),
    "Gather": _gather,
    "Identity": lambda _, x: x,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
}
