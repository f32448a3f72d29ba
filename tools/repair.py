"""Means and variances of a pruned network's channels set to the original's, layer after layer.

What the published codes of folding and of GRAIL do last, as REPAIR (arXiv 2211.08403) and as
re-estimated BatchNormalization do: every convolution's outputs are scaled and shifted, channel by
channel, to the mean and variance that the same channels have in the original. The layers before
are repaired already when a layer's turn comes.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch import nn
from torch_graph import GraphModule

from onnxprune import Plan, canonicalise, find_groups
from onnxprune.arrays import Array, IndexArray
from onnxprune.network import FROZEN

LARGEST = 10.0
"""Factor up to which a channel that has lost its variance is scaled."""

Moments = tuple[torch.Tensor, torch.Tensor]


def repaired(
    original: onnx.ModelProto, pruned: onnx.ModelProto, plan: Plan, images: Array
) -> onnx.ModelProto:
    """The pruned model, canonical, with its convolutions repaired.

    Args:
        original: the model the plan is for.
        pruned: the model the plan made.
        plan: what was cut.
        images: calibration images as the network takes them, float32 NCHW.
    """
    reference, module = GraphModule(original).eval(), GraphModule(pruned).eval()
    x = torch.from_numpy(images)
    wanted: list[Moments] = []
    for _, layer in reference.convolutions():
        layer.register_forward_hook(lambda _m, _x, y: wanted.append(moments(y)))
    with torch.no_grad():
        reference(x)
        for (node, layer), kept, (mean, deviation) in zip(
            module.convolutions(), survivors(original, plan), wanted, strict=True
        ):
            chosen = torch.from_numpy(kept)
            layer.register_forward_hook(_Repair(node, (mean[chosen], deviation[chosen])))
        module(x)
    return gs.export_onnx(module.graph.cleanup(), do_type_check=False)


def survivors(original: onnx.ModelProto, plan: Plan) -> list[IndexArray]:
    """The output channels of every convolution that the plan keeps, in the graph's order."""
    network = find_groups(canonicalise(original))
    alive = network.survivors({edit.group: edit.keep for edit in plan.edits})
    lanes = [network.channels(n.outputs[0], 1) for n in network.graph.nodes if n.op == "Conv"]
    return [np.flatnonzero((lane == FROZEN) | alive[lane]) for lane in lanes]


def moments(y: torch.Tensor) -> Moments:
    """Mean and standard deviation of every channel of NCHW activations."""
    deviation, mean = torch.std_mean(y, (0, 2, 3))
    return mean, deviation


class _Repair:
    """A hook that gives a layer's outputs these moments and writes the change into its node."""

    def __init__(self, node: gs.Node, wanted: Moments) -> None:
        self._node = node
        self._wanted = wanted

    def __call__(self, _: nn.Module, _inputs: tuple[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        mean, deviation = moments(y)
        wanted_mean, wanted_deviation = self._wanted
        scale = torch.where(deviation > 0, wanted_deviation / deviation, torch.ones(()))
        scale = scale.clamp(max=LARGEST)
        shift = wanted_mean - scale * mean
        self._write(scale.numpy(), shift.numpy())
        return y * scale[:, None, None] + shift[:, None, None]

    def _write(self, scale: Array, shift: Array) -> None:
        weight, *rest = self._node.inputs[1:]
        bias = rest[0].values if rest else np.zeros_like(shift)
        name = self._node.outputs[0].name
        scaled = weight.values * scale[:, None, None, None]
        self._node.inputs = [
            self._node.inputs[0],
            gs.Constant(f"{name}.weight", scaled.astype(np.float32)),
            gs.Constant(f"{name}.bias", (bias * scale + shift).astype(np.float32)),
        ]
