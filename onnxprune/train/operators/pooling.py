"""Pooling over windows and over all of space, and reductions of axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.linear import of_window, pad_spatial, paddings
from onnxprune.train.operators.registry import Node, Result, axes_of, index_of, operator

MAXIMA: dict[int, Any] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
MEANS: dict[int, Any] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


@operator("MaxPool")
def max_pool(node: Node, x: Tensor) -> Result:
    """The largest element of every window, and where it lies in the whole tensor."""
    kernel = node.attributes["kernel_shape"]
    rank = len(kernel)
    strides, dilations = of_window(node, "strides", rank), of_window(node, "dilations", rank)
    begin, end, more = _window_paddings(node, x)
    after = [e + m for e, m in zip(end, more, strict=True)]
    least = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = pad_spatial(x, begin, after, least)
    options = (kernel, strides, 0, dilations)
    if not node.makes(1):
        result: Tensor = MAXIMA[rank](padded, *options)
        return result
    y, places = MAXIMA[rank](padded, *options, return_indices=True)
    return y, _places_in(x, padded, places, begin, node.get("storage_order", 0))


def _places_in(
    x: Tensor, padded: Tensor, places: Tensor, begin: list[int], column_major: int
) -> Tensor:
    """Indices into a padded map of one channel as indices into the whole tensor before."""
    axes = range(len(begin))
    sizes, coordinates = x.shape[2:], []
    for axis in reversed(axes):
        extent = padded.shape[2 + axis]
        coordinates.append(places % extent - begin[axis])
        places = places // extent
    coordinates.reverse()
    order = list(axes)[::-1] if column_major else list(axes)
    flat = torch.zeros_like(places)
    for axis in order:
        flat = flat * sizes[axis] + coordinates[axis]
    maps = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    return flat + (maps * math.prod(sizes)).reshape(*x.shape[:2], *[1] * len(begin))


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """The mean of every window, with or without the paddings in it."""
    kernel = node.attributes["kernel_shape"]
    begin, end, more = _window_paddings(node, x)
    if not any((*begin, *end, *more)):
        return _window_mean(node, x)
    counted = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    outside = 1.0 if node.get("count_include_pad", 0) else 0.0
    counted = pad_spatial(pad_spatial(counted, begin, end, outside), [0] * len(kernel), more)
    after = [e + m for e, m in zip(end, more, strict=True)]
    return _window_mean(node, pad_spatial(x, begin, after)) / _window_mean(node, counted)


def _window_mean(node: Node, x: Tensor) -> Tensor:
    kernel = node.attributes["kernel_shape"]
    rank = len(kernel)
    strides, dilations = of_window(node, "strides", rank), of_window(node, "dilations", rank)
    if any(size != 1 for size in dilations):
        for axis in range(rank):
            x = _strided_mean(x, axis + 2, kernel[axis], strides[axis], dilations[axis])
        return x
    result: Tensor = MEANS[rank](x, kernel, strides)
    return result


def _strided_mean(x: Tensor, axis: int, size: int, stride: int, dilation: int) -> Tensor:
    """The mean of every window along one axis."""
    windows = x.unfold(axis, (size - 1) * dilation + 1, stride)
    return windows[..., ::dilation].mean(-1)


@operator("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    """The norm of every window."""
    order = node.get("p", 2)
    begin, end, more = _window_paddings(node, x)
    after = [e + m for e, m in zip(end, more, strict=True)]
    powers = pad_spatial(x.abs().pow(order), begin, after)
    total = _window_mean(node, powers) * math.prod(node.attributes["kernel_shape"])
    norm: Tensor = total.pow(1 / order)
    return norm


def _window_paddings(node: Node, x: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Paddings before and after, and what rounding up the number of windows needs behind them."""
    kernel = node.attributes["kernel_shape"]
    rank = len(kernel)
    strides, dilations = of_window(node, "strides", rank), of_window(node, "dilations", rank)
    begin, end = paddings(node, x.shape[2:], kernel)
    more = [0] * rank
    if node.get("ceil_mode", 0):
        for axis in range(rank):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            room = x.shape[2 + axis] + begin[axis] + end[axis] - reach
            count = -(-room // strides[axis]) + 1
            if (count - 1) * strides[axis] >= x.shape[2 + axis] + begin[axis]:
                count -= 1  # a window that lies in the paddings alone
            more[axis] = max((count - 1) * strides[axis] - room, 0)
    return begin, end, more


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    """The mean over space."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    """The largest element over space."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    """The norm over space."""
    axes = tuple(range(2, x.dim()))
    norm: Tensor = torch.linalg.vector_norm(x, node.get("p", 2), axes, keepdim=True)
    return norm


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).to(x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


@operator(*REDUCTIONS, values=(1,))
def reduce_axes(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Over the given axes; over all of them, or none, where none are given."""
    listed = axes_of(node, axes)
    if not listed and node.get("noop_with_empty_axes", 0):
        return x
    chosen = tuple(sorted({axis % x.dim() for axis in listed or range(x.dim())}))
    if not chosen:
        chosen = tuple(range(x.dim()))
    return REDUCTIONS[node.op](x, chosen, bool(node.get("keepdims", 1)))


@operator("ArgMax", "ArgMin")
def argument(node: Node, x: Tensor) -> Tensor:
    """Where the largest or smallest element lies along an axis, the first or the last of equals."""
    axis, keep = node.get("axis", 0) % x.dim(), bool(node.get("keepdims", 1))
    last = bool(node.get("select_last_index", 0))
    seen = x.flip(axis) if last else x
    find = torch.argmax if node.op == "ArgMax" else torch.argmin
    place = find(seen, axis, keepdim=keep)
    return x.shape[axis] - 1 - place if last else place


@operator("TopK", values=(1,))
def top(node: Node, x: Tensor, count: Tensor | None = None) -> Result:
    """The largest or smallest elements along an axis, and where they lie."""
    number = int(count) if count is not None else int(node.attributes["k"])
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    places = torch.argsort(x, dim=axis, descending=largest, stable=True)
    places = places.index_select(axis, index_of(list(range(number)), x))
    return x.gather(axis, places), places
