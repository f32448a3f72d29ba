"""Operators that arrange elements anew, and the arithmetic of shapes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.registry import (
    EVERY,
    Node,
    Result,
    axes_of,
    index_of,
    numbers,
    operator,
)
from onnxprune.train.operators.types import torch_type


@operator("Reshape", values=(1,))
def reshape(node: Node, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """0 copies an extent, -1 is what is left."""
    wanted = numbers(shape) if shape is not None else list(node.attributes["shape"])
    if not node.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape([int(size) for size in wanted])


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    """Two axes: those before the given one, and the others."""
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", values=(1,))
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without axes of extent 1: the given ones, or all."""
    listed = axes_of(node, axes)
    gone = {axis % x.dim() for axis in listed} if listed is not None else None
    kept = [
        size
        for axis, size in enumerate(x.shape)
        if (axis not in gone if gone is not None else size != 1)
    ]
    return x.reshape(kept)


@operator("Unsqueeze", values=(1,))
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With new axes of extent 1 at these places of the result."""
    listed = axes_of(node, axes) or []
    rank = x.dim() + len(listed)
    new, old = {axis % rank for axis in listed}, iter(x.shape)
    return x.reshape([1 if axis in new else next(old) for axis in range(rank)])


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    """Axes in another order; reversed unless it is given."""
    return x.permute(tuple(node.get("perm", range(x.dim() - 1, -1, -1))))


@operator("Concat", learnt=EVERY)
def concat(node: Node, *parts: Tensor) -> Tensor:
    """One after another along an axis."""
    return torch.cat(parts, node.attributes["axis"])


@operator("Split", values=(1,))
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> Result:
    """Parts along an axis, of the given sizes or as equal as can be."""
    axis = node.get("axis", 0)
    given = numbers(sizes) if sizes is not None else node.get("split", None)
    if given is None:
        count = node.get("num_outputs", len(node.outputs))
        size = -(-x.shape[axis] // count)
        given = [size] * (count - 1) + [x.shape[axis] - size * (count - 1)]
    return tuple(torch.split(x, [int(size) for size in given], axis))


@operator("Slice", values=(1, 2, 3, 4))
def slice_axes(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Every steps-th element from start to end; attributes before opset 10."""
    first = numbers(starts) if starts is not None else list(node.attributes["starts"])
    last = numbers(ends) if ends is not None else list(node.attributes["ends"])
    listed = axes_of(node, axes) or list(range(len(first)))
    strides = numbers(steps) if steps is not None else [1] * len(first)
    for start, end, axis, step in zip(first, last, listed, strides, strict=True):
        extent = x.shape[axis]
        begin, stop, stride = slice(start, _beyond(end, extent), step).indices(extent)
        if step > 0:
            x = x.narrow(axis, begin, max(stop - begin, 0))
            if step > 1:
                x = x.index_select(axis, index_of(list(range(0, x.shape[axis], step)), x))
        else:
            x = x.index_select(axis, index_of(list(range(begin, stop, stride)), x))
    return x


def _beyond(end: int, extent: int) -> int | None:
    """None for an end that lies before the first element, which -1 would not say."""
    return None if end < -extent else end


@operator("Pad", values=(1, 2, 3))
def pad(
    node: Node,
    x: Tensor,
    sizes: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """More elements before and after axes: a constant, or copies of those that are there."""
    given = numbers(sizes) if sizes is not None else list(node.get("pads", ()))
    listed = axes_of(node, axes) or list(range(len(given) // 2))
    half = len(given) // 2
    mode = node.get("mode", "constant")
    if mode == "constant":
        sides = [0] * 2 * x.dim()
        for place, axis in enumerate(listed):
            own = 2 * (x.dim() - 1 - axis % x.dim())
            sides[own], sides[own + 1] = int(given[place]), int(given[place + half])
        filling = float(value) if value is not None else float(node.get("value", 0.0))
        return functional.pad(x, sides, value=filling)
    for place, axis in enumerate(listed):
        before, after = int(given[place]), int(given[place + half])
        if before or after:
            entries = [
                _copied(entry, x.shape[axis], mode)
                for entry in range(-before, x.shape[axis] + after)
            ]
            x = x.index_select(axis, index_of(entries, x))
    return x


def _copied(entry: int, extent: int, mode: str) -> int:
    """Which element stands at a place beyond the ends."""
    if mode == "edge":
        return min(max(entry, 0), extent - 1)
    if mode == "wrap":
        return entry % extent
    period = max(2 * (extent - 1), 1)  # reflect
    place = entry % period
    return place if place < extent else period - place


@operator("Expand", values=(1,))
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Axes of extent 1 repeated, new ones in front."""
    wanted = [int(size) for size in numbers(shape)]
    rank = max(x.dim(), len(wanted))
    own, asked = [1] * (rank - x.dim()) + list(x.shape), [1] * (rank - len(wanted)) + wanted
    return x.expand([a if b == 1 else b for a, b in zip(own, asked, strict=True)])


@operator("Tile", values=(1,))
def tile(node: Node, x: Tensor, times: Tensor) -> Tensor:
    """Every axis as many times over as the repeats say."""
    return x.repeat([int(number) for number in numbers(times)])


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Channels become blocks of positions."""
    size = node.attributes["blocksize"]
    n, c, h, w = x.shape
    if node.get("mode", "DCR") == "DCR":
        parts = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // size**2, size, size, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // size**2, h * size, w * size)


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Blocks of positions become channels."""
    size = node.attributes["blocksize"]
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * size**2, h // size, w // size)


@operator("Shape")
def shape_of(node: Node, x: Tensor) -> Tensor:
    """The extents, as a vector in the memory of the CPU."""
    extents = list(x.shape)[node.get("start", 0) : node.get("end", None)]
    return torch.tensor(extents, dtype=torch.int64)


@operator("Size")
def size_of(node: Node, x: Tensor) -> Tensor:
    """The number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("ConstantOfShape", values=(0,))
def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """One value everywhere; 0 unless it is given."""
    value = node.get("value", torch.zeros(1))
    filled: Tensor = value.reshape(()).expand([int(size) for size in numbers(shape)]).clone()
    return filled


@operator("Range", values=(0, 1, 2))
def range_of(node: Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """From start up to limit."""
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


@operator("EyeLike")
def identity_like(node: Node, x: Tensor) -> Tensor:
    """Ones on a diagonal; of the type of the input, or of floats for whole numbers."""
    kind = torch_type(node.attributes["dtype"], node.name) if "dtype" in node.attributes else None
    ones = torch.ones(x.shape, dtype=kind or x.dtype, device=x.device)
    return torch.triu(torch.tril(ones, node.get("k", 0)), node.get("k", 0))
