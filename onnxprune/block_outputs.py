"""Where the inside of a pruned network can be compared with the original's: at residual joins."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx

from onnxprune.arrays import IndexArray
from onnxprune.network import Network
from onnxprune.plan import Plan
from onnxprune.rewrite import Cut, kept_channels
from onnxprune.section_search import find_sections

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


def block_outputs(
    network: Network, canonical: onnx.ModelProto, plan: Plan, pruned: Collection[str]
) -> Iterator[BlockOutput]:
    """The outputs of the residual joins that a plan leaves.

    Args:
        network: of the canonical model.
        canonical: that model.
        plan: what is cut.
        pruned: names of the tensors in the pruned model.
    """
    cut = Cut(network, kept_channels(network, plan))
    sections = find_sections(network, canonical).found
    for join in {id(section.join): section.join for section in sections}.values():
        output = join.outputs[0]
        if join.op not in JOINS or output.name not in pruned:
            continue
        axes = range(len(output.shape or ()))
        kept = {axis: cut.entries(output, axis) for axis in axes if cut.is_cut(output, axis)}
        yield BlockOutput(output.name, kept)
