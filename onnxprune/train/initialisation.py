"""Random weights for a network that is to be trained from the start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onnxprune.train.network import TrainableNetwork
from onnxprune.train.roles import known_operator

SCALING = (
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Mul",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
)
"""Operators that multiply by a vector of weights, which starts with ones."""
EMBEDDING = 0.02
"""Standard deviation of rows that are looked up or added."""


def start_anew(network: TrainableNetwork, seed: int) -> None:
    """Overwrite all weights: He-normal matrices and kernels, scales of one, shifts of zero.

    Running means become 0 and variances 1. The normal distribution has the variance 2 / inputs (He
    et al. 2015, arXiv 1502.01852, equation 10), for the inputs of each output.
    """
    generator = torch.Generator().manual_seed(seed)
    scales = _scales(network)
    layers = {layer.weight: layer for layer in network.linear_layers()}
    with torch.no_grad():
        for name, weight in network.weights.items():
            if name in scales:
                weight.fill_(1.0)
            elif _is_vector(weight):
                weight.zero_()
            elif name in layers and layers[name].inputs_first:
                _draw(weight, math.sqrt(2 / weight.shape[0]), generator)
            elif name in layers or weight.dim() > 2:
                _draw(weight, math.sqrt(2 / weight[0].numel()), generator)
            else:
                _draw(weight, EMBEDDING, generator)
        for node in network.graph.nodes:
            for place in known_operator(node).statistics:
                network.statistics[node.inputs[place]].fill_(
                    0.0 if place == min(known_operator(node).statistics) else 1.0
                )


def _scales(network: TrainableNetwork) -> set[str]:
    """Names of the weights that scale."""
    return {
        name
        for node in network.graph.nodes
        if node.op in SCALING
        for name in (node.inputs if node.op == "Mul" else node.inputs[1:2])
    }


def _is_vector(weight: Tensor) -> bool:
    return sum(extent > 1 for extent in weight.shape) <= 1


def _draw(weight: nn.Parameter, deviation: float, generator: torch.Generator) -> None:
    drawn = torch.randn(weight.shape, generator=generator) * deviation
    weight.copy_(drawn.to(weight.device))
