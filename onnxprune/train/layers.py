"""The linear layers of a graph: what they read, by which weights, with which window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from onnxprune.linear_map import Window
from onnxprune.train.graph import Graph
from onnxprune.train.operators import Node
from onnxprune.train.operators.linear import of_window, paddings

CONVOLUTIONS = ("Conv", "FusedConv")
PRODUCTS = ("Gemm", "FusedGemm", "MatMul")


@dataclass(frozen=True)
class LinearLayer:
    """A Conv, Gemm or MatMul whose weight is trained.

    Attributes:
        node: name of the node.
        operator: Conv or FusedConv, of weight shape (outputs, inputs / groups, *kernel); Gemm,
            FusedGemm or MatMul.
        input: name of the tensor it reads; of a MatMul the last axis holds the features.
        output: name of the tensor it makes, the bias included.
        weight: name of its weight.
        bias: name of its bias, which of a MatMul is what the Add behind it adds; None without one.
        inputs_first: whether the weight is stored with shape (inputs, outputs).
        groups: into how many parts a convolution divides its channels.
    """

    node: str
    operator: str
    input: str
    output: str
    weight: str
    bias: str | None
    inputs_first: bool = False
    groups: int = 1
    _source: Node | None = None
    _kernel: tuple[int, ...] = ()

    @property
    def convolutional(self) -> bool:
        """Whether its features are patches."""
        return bool(self._kernel)

    def window(self, extents: Sequence[int]) -> Window:
        """The sliding window of a convolution on an input of these spatial extents."""
        assert self._source is not None
        rank = len(self._kernel)
        begin, end = paddings(self._source, extents, self._kernel)
        return Window(
            self._kernel,
            tuple(of_window(self._source, "strides", rank)),
            tuple(of_window(self._source, "dilations", rank)),
            tuple(begin),
            tuple(end),
        )


def linear_layers(graph: Graph, weights: Container[str]) -> Iterator[LinearLayer]:
    """The linear layers in the graph's order.

    Left out are weights that something is computed from before they are read (but a
    transposition), and products whose weight comes first or whose input is transposed.
    """
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].append(node)
    for node in graph.nodes:
        if node.op not in (*CONVOLUTIONS, *PRODUCTS) or len(node.inputs) < 2:
            continue
        weight, turned = _weight(node.inputs[1], weights, makers)
        if weight is None or node.inputs[0] == weight or node.get("transA", 0):
            continue
        bias = _own_bias(node, weights)
        if node.op in CONVOLUTIONS:
            if not turned:
                yield LinearLayer(
                    node.name,
                    node.op,
                    node.inputs[0],
                    node.outputs[0],
                    weight,
                    bias,
                    False,
                    node.get("group", 1),
                    node,
                    tuple(graph.constants[weight].shape[2:]),
                )
            continue
        if graph.constants[weight].dim() != 2:
            continue
        output = node.outputs[0]
        if node.op == "MatMul":
            bias, output = _added(node, weights, readers, set(graph.outputs))
        first = bool(node.get("transB", 0)) == turned
        yield LinearLayer(node.name, node.op, node.inputs[0], output, weight, bias, first, 1, node)


def _weight(name: str, weights: Container[str], makers: dict[str, Node]) -> tuple[str | None, bool]:
    """The weight behind a tensor, and whether it is transposed on the way."""
    turned = False
    while name not in weights:
        node = makers.get(name)
        if node is None or node.op not in ("Identity", "Transpose"):
            return None, False
        if node.op == "Transpose":
            if list(node.get("perm", (1, 0))) != [1, 0]:
                return None, False
            turned = not turned
        name = node.inputs[0]
    return name, turned


def _own_bias(node: Node, weights: Container[str]) -> str | None:
    given = node.inputs[2] if len(node.inputs) > 2 else ""
    return given if given and given in weights else None


def _added(
    node: Node,
    weights: Container[str],
    readers: dict[str, list[Node]],
    outputs: Container[str],
) -> tuple[str | None, str]:
    """The bias that an Add behind a MatMul adds, and what the two make."""
    y = node.outputs[0]
    following = readers[y]
    if len(following) != 1 or following[0].op != "Add" or y in outputs:
        return None, y
    addends = [name for name in following[0].inputs if name != y]
    if len(addends) == 1 and addends[0] in weights:
        return addends[0], following[0].outputs[0]
    return None, y
