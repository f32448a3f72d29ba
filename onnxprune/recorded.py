"""Which node of a graph a kernel in onnxruntime's record computes.

onnxruntime names a kernel after the node, "fused <node>" or "<node>/<fusion>" where it has merged
it with others, and "<output>_nchwc" where it has moved it into the blocked layout (read in its
records; kernels with other names stay without a node).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune.kernel_times import Kernels

_FUSED, _BLOCKED = "fused ", "_nchwc"


@dataclass(frozen=True)
class Recorded:
    """Milliseconds of one run of a whole model.

    Attributes:
        nodes: name of a node -> the time of its kernels.
        nameless: the time of kernels that belong to no node, as copies between layouts.
        rest: what passes between kernels.
        wall: the whole run.
    """

    nodes: dict[str, float]
    nameless: float
    rest: float
    wall: float


def recorded(kernels: Kernels, graph: gs.Graph) -> Recorded:
    """The times of a record by the nodes of the graph that was run."""
    names = {str(node.name) for node in graph.nodes}
    makers = {str(output.name): node for node in graph.nodes for output in node.outputs}
    nodes: dict[str, float] = defaultdict(float)
    nameless = 0.0
    for kernel, time in kernels.times.items():
        name = _node_of(kernel, names, makers)
        if name is None:
            nameless += time
        else:
            nodes[name] += time
    return Recorded(dict(nodes), nameless, kernels.rest, kernels.wall)


def _node_of(kernel: str, names: set[str], makers: dict[str, gs.Node]) -> str | None:
    if kernel in names:
        return kernel
    if kernel.endswith(_BLOCKED):
        return _computing(makers.get(kernel.removesuffix(_BLOCKED)))
    name = kernel.removeprefix(_FUSED)
    while name not in names and "/" in name:
        name = name.rpartition("/")[0]
    return name if name in names else None


def _computing(node: gs.Node | None) -> str | None:
    """The node itself, or the convolution whose output it only applies a function to."""
    first = node
    while node is not None and node.op != "Conv":
        before = [x for x in node.inputs if not isinstance(x, gs.Constant) and not x.is_empty()]
        node = before[0].inputs[0] if len(before) == 1 and before[0].inputs else None
        if node is not None and len(node.outputs[0].outputs) != 1:
            node = None
    found = node or first
    return None if found is None else str(found.name)
