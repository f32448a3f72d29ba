"""Operators that pick elements, write to places, sort and accumulate."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.train.operators.registry import Node, operator

REDUCED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
"""How elements that are written to one place are put together, as torch calls it."""


@operator("Gather", weights=(0,))
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Along an axis; the axes of the indices take the place of the axis."""
    axis = node.get("axis", 0) % x.dim()
    places = _positive(indices, x.shape[axis])
    if axis == 0 and x.dim() == 2 and x.requires_grad:
        return torch.nn.functional.embedding(places, x)
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements", weights=(0,))
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """For every index the element at it along an axis."""
    axis = node.get("axis", 0) % x.dim()
    return x.gather(axis, _positive(indices, x.shape[axis]))


@operator("GatherND", weights=(0,))
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """The slices that index tuples name, for every sample of the first axes."""
    batch = node.get("batch_dims", 0)
    return x[_tuples(indices, x, batch)]


def _tuples(indices: Tensor, x: Tensor, batch: int = 0) -> tuple[Tensor, ...]:
    """The last axis of the indices as an index per axis, those of the batch in front."""
    rank = indices.dim() - 1
    own = [
        torch.arange(x.shape[axis], device=x.device).reshape(
            *[1] * axis, -1, *[1] * (rank - axis - 1)
        )
        for axis in range(batch)
    ]
    parts = [
        _positive(part, x.shape[batch + place]) for place, part in enumerate(indices.unbind(-1))
    ]
    return (*own, *parts)


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Elements along an axis replaced, or put together with what is written there."""
    axis = node.get("axis", 0) % x.dim()
    places, values = _positive(indices, x.shape[axis]), updates.to(x.dtype)
    how = node.get("reduction", "none")
    if how == "none":
        return x.scatter(axis, places, values)
    return x.scatter_reduce(axis, places, values, REDUCED[how], include_self=True)


@operator("ScatterND")
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Slices that index tuples name replaced, or put together with what is written there."""
    values, how = updates.to(x.dtype), node.get("reduction", "none")
    places = _tuples(indices, x)
    if how in ("none", "add"):
        return x.index_put(places, values, accumulate=how == "add")
    flat = torch.arange(x.numel(), device=x.device).reshape(x.shape)[places].reshape(-1)
    reduced = x.reshape(-1).scatter_reduce(0, flat, values.reshape(-1), REDUCED[how])
    return reduced.reshape(x.shape)


@operator("Compress")
def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    """What a condition picks along an axis, or of all elements."""
    flat = x if "axis" in node.attributes else x.reshape(-1)
    axis = node.get("axis", 0)
    return flat.index_select(axis, torch.nonzero(condition.reshape(-1)).reshape(-1))


@operator("NonZero")
def nonzero(node: Node, x: Tensor) -> Tensor:
    """The places of all elements that are not 0, one column each."""
    return torch.nonzero(x).T


@operator("OneHot", values=(1,))
def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """On at the index and off elsewhere, along a new axis."""
    size, axis = int(depth.reshape(())), node.get("axis", -1)
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    places = torch.arange(size, device=indices.device)
    places = places.reshape(-1, *[1] * (indices.dim() - axis))
    at = torch.remainder(indices, size).unsqueeze(axis) == places
    inside = ((indices >= -size) & (indices < size)).unsqueeze(axis)
    return torch.where(at & inside, values[1], values[0])


@operator("CumSum", values=(1,))
def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    """Sums of all elements up to each, without itself if exclusive, from the end if reversed."""
    along = int(axis.reshape(()))
    seen = x.flip(along) if node.get("reverse", 0) else x
    total = seen.cumsum(along).to(x.dtype)
    if node.get("exclusive", 0):
        total = total - seen
    return total.flip(along) if node.get("reverse", 0) else total


@operator("ReverseSequence")
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """The first elements of every sequence in reverse, as many as it is long."""
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)
    shape = [x.shape[axis] if axis in (batch, time) else 1 for axis in range(x.dim())]
    sizes = lengths.to(torch.int64).reshape([-1 if axis == batch else 1 for axis in range(x.dim())])
    steps = torch.arange(x.shape[time], device=x.device)
    steps = steps.reshape([-1 if axis == time else 1 for axis in range(x.dim())]).expand(shape)
    return x.gather(time, torch.where(steps < sizes, sizes - 1 - steps, steps).expand(x.shape))


@operator("Trilu", values=(1,))
def triangle(node: Node, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """The upper or lower triangle of matrices."""
    shift = 0 if diagonal is None else int(diagonal.reshape(()))
    return torch.triu(x, shift) if node.get("upper", 1) else torch.tril(x, shift)


def _positive(indices: Tensor, extent: int) -> Tensor:
    """Indices counted from the front."""
    places = indices.to(torch.int64)
    return torch.where(places < 0, places + extent, places)
