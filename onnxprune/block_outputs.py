"""Where the inside of a pruned network can be compared with the original's: at residual joins."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.network import Network
from onnxprune.plan import Plan
from onnxprune.rewrite import Cut, kept_channels

JOINS = ("Add", "Sum")


@dataclass(frozen=True)
class BlockOutput:
    """What a residual join makes.

    Attributes:
        name: of the tensor, in the canonical model and in the pruned one.
        kept: of every axis that is cut, the sorted entries (before the cut) that survive.
    """

    name: str
    kept: dict[int, IndexArray]


def block_outputs(network: Network, plan: Plan, pruned: Collection[str]) -> Iterator[BlockOutput]:
    """The outputs of the joins of two activations or more that a plan leaves.

    Args:
        network: of the canonical model.
        plan: what is cut.
        pruned: names of the tensors in the pruned model.
    """
    cut = Cut(network, kept_channels(network, plan))
    for node in network.graph.nodes:
        if node.op not in JOINS or not node.outputs or node.outputs[0].name not in pruned:
            continue
        if sum(isinstance(tensor, gs.Variable) for tensor in node.inputs) < 2:
            continue
        output = node.outputs[0]
        axes = range(len(output.shape or ()))
        kept = {axis: cut.entries(output, axis) for axis in axes if cut.is_cut(output, axis)}
        yield BlockOutput(output.name, kept)
