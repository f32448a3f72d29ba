"""How much of a network is computed in training, by counting the nodes that are executed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onnxprune.train.network import Tap, TrainableNetwork
from onnxprune.train.operators import Node

CONVOLUTIONS = ("Conv", "FusedConv")
PRODUCTS = ("FusedGemm", "Gemm", "MatMul")
COUNTED = (*CONVOLUTIONS, *PRODUCTS, "ConvTranspose")
BACKWARD = 2
"""A backward pass computes gradients of weights and of activations: twice a forward pass."""


def node_macs(network: TrainableNetwork, feed: Mapping[str, Tensor]) -> dict[str, int]:
    """Multiply-accumulates per batch of every convolution and matrix product, by node name.

    Recurrent layers and fused attention are not counted.

    Args:
        network: it is run once, in evaluation mode.
        feed: a batch.
    """
    counted = [node for node in network.graph.nodes if node.op in COUNTED]
    shapes: dict[str, tuple[int, ...]] = {
        name: tuple(value.shape) for name, value in network.graph.constants.items()
    }
    made = {name for node in network.graph.nodes for name in node.outputs}
    seen = (made | set(network.input_names)) & {
        name for node in counted for name in (*node.inputs[:2], node.outputs[0])
    }

    def watching(name: str) -> Tap:
        def watch(value: Tensor) -> Tensor:
            shapes[name] = tuple(value.shape)
            return value

        return watch

    training, executed = network.training, Counter(network.executed)
    network.eval()
    with torch.no_grad():
        network(feed, taps={name: watching(name) for name in seen})
    network.train(training)
    network.executed = executed
    return {node.name: _macs(node, shapes) for node in counted if node.outputs[0] in shapes}


def _macs(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, second = shapes[node.inputs[0]], shapes[node.inputs[1]]
    made = math.prod(shapes[node.outputs[0]])
    if node.op in CONVOLUTIONS:
        return made * math.prod(second[1:])
    if node.op == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    return made * first[0 if node.get("transA", 0) else -1]


class ExecutedMacs:
    """What passes through a network have computed, and what full ones would have.

    Args:
        network: its counter of executed nodes is read.
        macs: node name -> multiply-accumulates of one forward pass.
    """

    def __init__(self, network: TrainableNetwork, macs: Mapping[str, int]) -> None:
        self._network = network
        self._macs = dict(macs)
        self._whole = sum(macs.values())
        self._before = Counter(network.executed)
        self.spent = 0
        self.full = 0

    def start(self) -> None:
        """What is executed from here on counts."""
        self._before = Counter(self._network.executed)

    def trained(self) -> None:
        """What was executed was one step's forward pass, and its backward pass followed."""
        self.spent += (1 + BACKWARD) * self._since()
        self.full += (1 + BACKWARD) * self._whole

    def measured(self) -> None:
        """What was executed were forward passes that plain training does not need."""
        self.spent += self._since()

    def _since(self) -> int:
        executed = self._network.executed
        total = sum(n * (executed[name] - self._before[name]) for name, n in self._macs.items())
        self.start()
        return total

    def state(self) -> dict[str, Any]:
        """What has been counted so far."""
        return {"macs": self._macs, "spent": self.spent, "full": self.full}

    @classmethod
    def of(cls, network: TrainableNetwork, state: Mapping[str, Any]) -> ExecutedMacs:
        """A counter that goes on from a state."""
        counter = cls(network, state["macs"])
        counter.spent, counter.full = state["spent"], state["full"]
        return counter

    @property
    def share(self) -> float:
        """MACs executed over those of full passes through the network as it was at first."""
        return self.spent / self.full if self.full else 1.0
