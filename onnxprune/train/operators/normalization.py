"""Normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.registry import Node, Result, operator

SOFTMAX_OF_ONE_AXIS = 13
"""First opset in which Softmax takes one axis, not all from the given one (or the second) on."""
MOMENT_AXES = (0, 2, 3)
"""What a MeanVarianceNormalization averages over unless it says so."""
VARIANCE_FLOOR = 1e-9
"""What the function of MeanVarianceNormalization adds to the deviation."""


@operator("BatchNormalization", weights=(1, 2), statistics=(3, 4))
def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Result:
    """In training by the batch's own mean and variance, else by the running ones.

    In training the running ones follow: running = momentum running + (1 - momentum) batch, with
    the population variance, as the operator's definition has it. A batch of one value per channel
    has no variance: the running ones serve.
    """
    epsilon = node.get("epsilon", 1e-5)
    own = bool(node.get("training_mode", 0))
    if not own and (not node.mode.training or node.mode.frozen_statistics):
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    count = x.numel() // x.shape[1]
    if count < 2:
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    if not own and not node.mode.updating:
        return functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
    y = functional.batch_norm(x, batch_mean, batch_variance, scale, bias, True, 1.0, epsilon)
    share = 1 - node.get("momentum", 0.9)
    population = batch_variance * ((count - 1) / count)
    if own:
        return y, mean.lerp(batch_mean, share), variance.lerp(population, share)
    with torch.no_grad():
        mean.lerp_(batch_mean, share)
        variance.lerp_(population, share)
    return y


@operator("InstanceNormalization", weights=(1, 2))
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every channel of every sample by its own mean and variance."""
    axes = tuple(range(2, x.dim()))
    return _normalised(x, axes, node.get("epsilon", 1e-5)) * per_channel(scale, x) + per_channel(
        bias, x
    )


@operator("GroupNormalization", weights=(1, 2))
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every group of channels by its own; scale and bias per group (opset 18) or channel."""
    groups, channels = node.attributes["num_groups"], x.shape[1]
    if scale.numel() != channels:
        scale, bias = (part.repeat_interleave(channels // groups) for part in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@operator("LayerNormalization", weights=(1, 2))
def layer_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Result:
    """All axes from the given one on together."""
    first = node.get("axis", -1) % x.dim()
    epsilon, shape = node.get("epsilon", 1e-5), x.shape[first:]
    if not node.makes(1) and not node.makes(2):
        given = None if bias is None else bias.expand(shape)
        return functional.layer_norm(x, shape, scale.expand(shape), given, epsilon)
    axes = tuple(range(first, x.dim()))
    mean = x.mean(axes, keepdim=True)
    deviation = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)
    y = (x - mean) * deviation * scale
    return (y if bias is None else y + bias), mean, deviation


@operator("RMSNormalization", "SimplifiedLayerNormalization", weights=(1,))
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Result:
    """All axes from the given one on divided by the root of their mean square."""
    axes = tuple(range(node.get("axis", -1) % x.dim(), x.dim()))
    factor = torch.rsqrt(x.square().mean(axes, keepdim=True) + node.get("epsilon", 1e-5))
    return x * factor * scale, factor


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the axes."""
    axes = tuple(node.get("axes", MOMENT_AXES))
    centred = x - x.mean(axes, keepdim=True)
    deviation = centred.square().mean(axes, keepdim=True).sqrt()
    return centred / (deviation + VARIANCE_FLOOR)


@operator("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    """Divided by the norm along an axis."""
    norm = torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@operator("LRN")
def local_response_normalization(node: Node, x: Tensor) -> Tensor:
    """Channels divided by what lies in a window of their neighbours."""
    size = node.attributes["size"]
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = functional.pad(x.square().flatten(2), (0, 0, before, after))
    sums = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
    alpha, beta, shift = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    divisor: Tensor = (shift + alpha / size * sums).pow(beta)
    return x / divisor


@operator("Softmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    """Along an axis, or before opset 13 all axes from it on."""
    axis, shape = _softmax_axis(node, x)
    return functional.softmax(x.reshape(shape), axis).reshape(x.shape)


@operator("LogSoftmax")
def log_softmax(node: Node, x: Tensor) -> Tensor:
    """The logarithm of Softmax."""
    axis, shape = _softmax_axis(node, x)
    return functional.log_softmax(x.reshape(shape), axis).reshape(x.shape)


@operator("Hardmax")
def hardmax(node: Node, x: Tensor) -> Tensor:
    """1 at the first maximum along an axis, 0 elsewhere."""
    axis, shape = _softmax_axis(node, x)
    flat = x.reshape(shape)
    place = flat.argmax(axis, keepdim=True)
    return torch.zeros_like(flat).scatter(axis, place, 1.0).reshape(x.shape)


@operator("SkipLayerNormalization", domain="com.microsoft", weights=(2, 3, 4), shifts=(0, 1))
def skip_layer_normalization(
    node: Node,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
) -> Result:
    """LayerNormalization of a sum, which is the fourth output."""
    total = x + skip if bias is None else x + skip + bias
    epsilon = node.get("epsilon", 1e-12)
    y = functional.layer_norm(total, total.shape[-1:], scale, beta, epsilon)
    return y, None, None, total


@operator("SkipSimplifiedLayerNormalization", domain="com.microsoft", weights=(2, 3), shifts=(0, 1))
def skip_rms_normalization(
    node: Node, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Result:
    """RMSNormalization of a sum, which is the fourth output."""
    total = x + skip if bias is None else x + skip + bias
    factor = torch.rsqrt(total.square().mean(-1, keepdim=True) + node.get("epsilon", 1e-12))
    return total * factor * scale, None, None, total


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """A vector as a factor of the second axis."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _normalised(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    mean = x.mean(tuple(axes), keepdim=True)
    variance = (x - mean).square().mean(tuple(axes), keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon)


def _softmax_axis(node: Node, x: Tensor) -> tuple[int, tuple[int, ...]]:
    """The axis to normalise, and the shape in which it is one axis."""
    if node.opset >= SOFTMAX_OF_ONE_AXIS:
        return node.get("axis", -1), tuple(x.shape)
    first = node.get("axis", 1) % x.dim()
    return 1, (math.prod(x.shape[:first]), math.prod(x.shape[first:]))
