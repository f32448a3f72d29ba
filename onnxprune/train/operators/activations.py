"""Activations with parameters, by themselves and in fused nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.registry import Function, Node, operator

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805


def _selu(x: Tensor, alpha: float = SELU_ALPHA, gamma: float = SELU_GAMMA) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _shrink(x: Tensor, lambd: float = 0.5, bias: float = 0.0) -> Tensor:
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))


def _affine(x: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    return alpha * x + beta


def _scaled_tanh(x: Tensor, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    return alpha * torch.tanh(beta * x)


def _thresholded(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _swish(x: Tensor, alpha: float = 1.0) -> Tensor:
    return x * torch.sigmoid(x if alpha == 1 else alpha * x)


def _clipped(x: Tensor, min: float = -math.inf, max: float = math.inf) -> Tensor:
    return torch.clamp(x, min, max)


ACTIVATIONS: dict[str, Any] = {
    "Affine": _affine,
    "Celu": lambda x, alpha=1.0: functional.celu(x, alpha),
    "Clip": _clipped,
    "Elu": lambda x, alpha=1.0: functional.elu(x, alpha),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": functional.hardswish,
    "LeakyRelu": lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    "Relu": torch.relu,
    "ScaledTanh": _scaled_tanh,
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": torch.sigmoid,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Swish": _swish,
    "Tanh": torch.tanh,
    "ThresholdedRelu": _thresholded,
}
"""Activations by the names that nodes, and attributes of fused and recurrent nodes, give them."""
PARAMETRIC = (
    "Celu",
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Selu",
    "Shrink",
    "Swish",
    "ThresholdedRelu",
)


def _parametric(name: str) -> Function:
    return lambda node, x: ACTIVATIONS[name](x, **node.attributes)


for _op in PARAMETRIC:
    operator(_op)(_parametric(_op))


def activated(x: Tensor, name: str, parameters: Mapping[str, float]) -> Tensor:
    """An activation with the parameters that are given, the others as it has them."""
    if not name:
        return x
    result: Tensor = ACTIVATIONS[name](x, **parameters)
    return result


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    """X times the normal distribution's integral, exactly or by tanh."""
    return functional.gelu(x, approximate=node.get("approximate", "none"))


@operator("Gelu", domain="com.microsoft")
def contrib_gelu(node: Node, x: Tensor) -> Tensor:
    """The exact form."""
    return functional.gelu(x)


@operator("BiasGelu", domain="com.microsoft", shifts=(0, 1))
def bias_gelu(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    """The exact form of a sum."""
    return functional.gelu(x + bias)


@operator("FastGelu", domain="com.microsoft", shifts=(1,))
def fast_gelu(node: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The form by tanh, of a sum if there is a bias."""
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain="com.microsoft")
def quick_gelu(node: Node, x: Tensor) -> Tensor:
    """X sigmoid(alpha x)."""
    return x * torch.sigmoid(node.get("alpha", 1.702) * x)
