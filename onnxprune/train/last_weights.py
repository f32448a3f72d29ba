"""The weights in the last layers of a section, which decay while its gate is off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxprune.train.gated_sections import GatedSection
from onnxprune.train.graph import Graph
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.operators import Node

LINEAR = frozenset({"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "Gemm", "MatMul"})
NORMALISING = frozenset({"BatchNormalization"})
SCALING = frozenset({"Add", "Mul", "Sub", "Sum"})
"""What may stand behind them with weights that vanish with the branch."""
MOVING = frozenset({"Cast", "Identity", "Transpose"})
"""What a weight may go through before it is read."""


@dataclass(frozen=True)
class LastWeights:
    """Names of weights, in the order in which they are met from the back.

    Attributes:
        every: weights, biases, scales and shifts up to the last linear layers.
        outermost: those that alone make the branch vanish: scale and shift of a BatchNorm that
            ends it, or else the weight and bias, with what scales and shifts behind them.
    """

    every: tuple[str, ...]
    outermost: tuple[str, ...]


def last_weights(network: TrainableNetwork, section: GatedSection) -> LastWeights:
    """The last weights of a section; none where they are constants of the graph."""
    walk = _Walk(network, section)
    every = tuple(dict.fromkeys(walk.weights()))
    return LastWeights(every, walk.outermost(every))


class _Walk:
    """A section from the back."""

    def __init__(self, network: TrainableNetwork, section: GatedSection) -> None:
        graph: Graph = network.graph
        self._weights = network.weights
        self._made = section.made
        self._all = {name: node for node in graph.nodes for name in node.outputs if name}
        branch = set(section.nodes)
        self._maker = {name: node for name, node in self._all.items() if node.outputs[0] in branch}

    def weights(self) -> Iterator[str]:
        """The weights of the layers it ends in."""
        pending, seen = [self._made], set()
        while pending:
            node = self._maker.get(pending.pop(0))
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            yield from self._own(node)
            if node.op not in LINEAR:
                pending += node.inputs

    def outermost(self, every: tuple[str, ...]) -> tuple[str, ...]:
        """Those up to the first layer that has all channels of the branch to itself."""
        node = self._maker[self._made]
        while node.op not in LINEAR | NORMALISING:
            ahead = [name for name in node.inputs if name in self._maker and not self._fixed(name)]
            if len(ahead) != 1:
                return every
            node = self._maker[ahead[0]]
        own = set(self._own(node))
        place = max((i for i, name in enumerate(every) if name in own), default=-1)
        return every[: place + 1]

    def _fixed(self, name: str) -> bool:
        """Whether a tensor is a weight that is moved."""
        return self._source(name) in self._weights

    def _own(self, node: Node) -> list[str]:
        """The weights that a node reads, but what it divides by."""
        if node.op not in LINEAR | NORMALISING | SCALING:
            return []
        return [name for name in map(self._source, node.inputs) if name in self._weights]

    def _source(self, name: str) -> str:
        while name in self._all and self._all[name].op in MOVING and name not in self._weights:
            name = self._all[name].inputs[0]
        return name
