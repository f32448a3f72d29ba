"""Linear maps: convolutions and products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.registry import Node, operator

CONVOLUTIONS: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED: dict[int, Any] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@operator("Conv", weights=(1, 2))
def convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Y = W * X + b, over one to three spatial axes."""
    rank = weight.dim() - 2
    strides, dilations = of_window(node, "strides", rank), of_window(node, "dilations", rank)
    begin, end = paddings(node, x.shape[2:], weight.shape[2:])
    if begin != end:
        x, begin = pad_spatial(x, begin, end), [0] * rank
    result: Tensor = CONVOLUTIONS[rank](
        x, weight, bias, strides, begin, dilations, node.get("group", 1)
    )
    return result


@operator("ConvTranspose", weights=(1, 2))
def transposed_convolution(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Every position of X is spread over a window of Y; paddings are cut off from the result."""
    rank = weight.dim() - 2
    strides, dilations = of_window(node, "strides", rank), of_window(node, "dilations", rank)
    extra = [int(size) for size in node.get("output_padding", [0] * rank)]
    begin, end = _cropped(node, x, weight, strides, dilations, extra)
    y: Tensor = TRANSPOSED[rank](x, weight, None, strides, 0, 0, node.get("group", 1), dilations)
    y = pad_spatial(y, [-b for b in begin], [e - b for e, b in zip(extra, end, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _cropped(
    node: Node,
    x: Tensor,
    weight: Tensor,
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> tuple[list[int], list[int]]:
    """What is cut off from the result at both ends of every spatial axis."""
    rank = len(strides)
    automatic = node.get("auto_pad", "NOTSET")
    sizes = node.get("output_shape", None)
    if sizes is None and not automatic.startswith("SAME"):
        pads = list(node.get("pads", [0] * 2 * rank))
        return pads[:rank], pads[rank:]
    begin, end = [], []
    for axis in range(rank):
        whole = (x.shape[2 + axis] - 1) * strides[axis] + extra[axis]
        whole += (weight.shape[2 + axis] - 1) * dilations[axis] + 1
        wanted = sizes[axis - rank] if sizes is not None else x.shape[2 + axis] * strides[axis]
        total = max(whole - int(wanted), 0) if sizes is None else whole - int(wanted)
        small, large = total // 2, total - total // 2
        first = large if automatic == "SAME_LOWER" or automatic == "NOTSET" else small
        begin.append(first)
        end.append(total - first)
    return begin, end


@operator("Gemm", weights=(0, 1, 2))
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Y = alpha A B + beta C, with A and B transposed where the attributes say so."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    first = a.T if node.get("transA", 0) else a
    if node.get("transB", 0) and alpha == 1 and beta == 1 and (c is None or c.dim() == 1):
        return functional.linear(first, b, c)
    product = first @ (b.T if node.get("transB", 0) else b)
    if alpha != 1:
        product = product * alpha
    if c is None or beta == 0:
        return product
    return product + (c if beta == 1 else c * beta)


@operator("MatMul", weights=(0, 1))
def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The product of the last two axes."""
    return torch.matmul(a, b)


@operator("Einsum", weights=(0, 1, 2, 3))
def einsum(node: Node, *factors: Tensor) -> Tensor:
    """A sum of products as the equation says."""
    return torch.einsum(node.attributes["equation"].replace(" ", ""), *factors)


def of_window(node: Node, name: str, rank: int) -> list[int]:
    """Strides or dilations, 1 where they are not given."""
    return [int(size) for size in node.get(name, [1] * rank)] or [1] * rank


def paddings(
    node: Node, extents: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Zeros before and after every spatial axis."""
    rank = len(kernel)
    automatic = node.get("auto_pad", "NOTSET")
    if automatic == "VALID":
        return [0] * rank, [0] * rank
    if automatic == "NOTSET":
        pads = [int(size) for size in node.get("pads", [])] or [0] * 2 * rank
        return pads[:rank], pads[rank:]
    strides, dilations = of_window(node, "strides", rank), of_window(node, "dilations", rank)
    begin, end = [], []
    for axis, extent in enumerate(extents):
        stride, reach = strides[axis], (kernel[axis] - 1) * dilations[axis] + 1
        total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
        first = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        begin.append(first)
        end.append(total - first)
    return begin, end


def pad_spatial(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """Padded on every axis from the third one on; negative numbers cut off."""
    if not any(begin) and not any(end):
        return x
    sides = [side for pair in reversed(list(zip(begin, end, strict=True))) for side in pair]
    return functional.pad(x, sides, value=value)
