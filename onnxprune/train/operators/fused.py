"""Linear maps that onnxruntime fuses with what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from onnxprune.train.operators.activations import activated
from onnxprune.train.operators.linear import convolution, gemm
from onnxprune.train.operators.normalization import per_channel
from onnxprune.train.operators.registry import Node, operator

MICROSOFT = "com.microsoft"
CONV_PARAMETERS = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
}
"""What the numbers in the attribute activation_params of a FusedConv are."""


@operator("FusedConv", domain=MICROSOFT, weights=(1, 2))
def fused_convolution(
    node: Node,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    addend: Tensor | None = None,
) -> Tensor:
    """Conv, what is added to it, and its activation."""
    y = convolution(node, x, weight, bias)
    name = node.get("activation", "")
    values = dict(
        zip(CONV_PARAMETERS.get(name, ()), node.get("activation_params", ()), strict=True)
    )
    return activated(y if addend is None else y + addend, name, values)


@operator("FusedGemm", domain=MICROSOFT, weights=(0, 1, 2))
def fused_gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm and its activation."""
    prefix = "activation_"
    values: Mapping[str, float] = {
        name.removeprefix(prefix): value
        for name, value in node.attributes.items()
        if name.startswith(prefix)
    }
    y = gemm(node, a, b, c)
    return activated(y, node.get("activation", ""), values)


@operator("FusedMatMul", domain=MICROSOFT, weights=(0, 1))
def fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """MatMul of factors that are transposed where attributes say so, times alpha."""
    factors = [
        _turned(x, node.get(f"trans{side}", 0), node.get(f"transBatch{side}", 0))
        for x, side in ((a, "A"), (b, "B"))
    ]
    product = torch.matmul(*factors)
    alpha = node.get("alpha", 1.0)
    return product if alpha == 1 else product * alpha


def _turned(x: Tensor, matrix: int, batch: int) -> Tensor:
    if x.dim() < 2:
        return x
    if batch:  # the first axis comes last but one
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if matrix else x


@operator("ImageScaler")
def image_scaler(node: Node, x: Tensor) -> Tensor:
    """A scale and a bias per channel."""
    bias = torch.tensor(node.attributes["bias"], dtype=x.dtype, device=x.device)
    scale = float(node.get("scale", 1.0))
    return x * scale + per_channel(bias, x)
