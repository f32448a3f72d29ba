"""Operators that read feature maps between their positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.linear import of_window, paddings
from onnxprune.train.operators.registry import Node, limit, operator

MODES = {"linear": "bilinear", "cubic": "bicubic"}
"""Names of newer opsets as torch has them."""


@operator("GridSample")
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """X at the positions that the grid says, each coordinate from -1 to 1."""
    mode = node.get("mode", "bilinear")
    return functional.grid_sample(
        x,
        grid.to(x.dtype),
        MODES.get(mode, mode),
        node.get("padding_mode", "zeros"),
        bool(node.get("align_corners", 0)),
    )


@operator("DeformConv", weights=(1, 3))
def deformable_convolution(
    node: Node,
    x: Tensor,
    weight: Tensor,
    offsets: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """A convolution whose window reads where the offsets say; X outside the map is zero."""
    batch, channels, height, width = x.shape
    outputs, _, rows, columns = weight.shape
    sets, groups = node.get("offset_group", 1), node.get("group", 1)
    high, wide = offsets.shape[2:]
    kernel = rows * columns
    at = offsets.reshape(batch * sets, kernel, 2, high, wide)
    y, x_places = _window_places(node, x, weight, high, wide)
    places_y, places_x = at[:, :, 0] + y, at[:, :, 1] + x_places
    grid = torch.stack([2 * places_x / (width - 1), 2 * places_y / (height - 1)], -1) - 1
    maps = x.reshape(batch * sets, channels // sets, height, width)
    grid = grid.reshape(batch * sets, kernel * high, wide, 2)
    taps = functional.grid_sample(maps, grid, "bilinear", "zeros", True)
    taps = taps.reshape(batch, sets, channels // sets, kernel, high * wide)
    if mask is not None:
        taps = taps * mask.reshape(batch, sets, 1, kernel, high * wide)
    patches = taps.reshape(batch, groups, channels // groups * kernel, high * wide)
    matrix = weight.reshape(groups, outputs // groups, -1)
    result = torch.matmul(matrix, patches).reshape(batch, outputs, high, wide)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


def _window_places(
    node: Node, x: Tensor, weight: Tensor, high: int, wide: int
) -> tuple[Tensor, Tensor]:
    """Where the window reads without offsets: rows and columns, shape (kernel, high, wide)."""
    kernel = weight.shape[2:]
    strides, dilations = of_window(node, "strides", 2), of_window(node, "dilations", 2)
    begin, _ = paddings(node, x.shape[2:], kernel)
    found = []
    for axis, extent in enumerate((high, wide)):
        out = torch.arange(extent, device=x.device, dtype=x.dtype) * strides[axis] - begin[axis]
        tap = torch.arange(kernel[axis], device=x.device, dtype=x.dtype) * dilations[axis]
        found.append((tap[:, None] + out).reshape(kernel[axis], extent))
    rows = found[0][:, None, :, None].expand(kernel[0], kernel[1], high, wide)
    columns = found[1][None, :, None, :].expand(kernel[0], kernel[1], high, wide)
    return rows.reshape(-1, high, wide), columns.reshape(-1, high, wide)


@operator("RoiAlign", values=(1, 2))
def roi_align(node: Node, x: Tensor, boxes: Tensor, samples: Tensor) -> Tensor:
    """The regions of X that the boxes say, each as a map of one size."""
    regions = [
        _region(node, x[int(sample)], [float(edge) for edge in box])
        for box, sample in zip(boxes.tolist(), samples.tolist(), strict=True)
    ]
    size = (x.shape[1], node.get("output_height", 1), node.get("output_width", 1))
    return torch.stack(regions) if regions else x.new_zeros((0, *size))


@limit("RoiAlign")
def _only_means(node: Node) -> str | None:
    return "it takes maxima of regions" if node.get("mode", "avg") != "avg" else None


def _region(node: Node, x: Tensor, box: list[float]) -> Tensor:
    scale = node.get("spatial_scale", 1.0)
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    half = node.get("coordinate_transformation_mode", default) == "half_pixel"
    shift = 0.5 if half else 0.0
    left, top, right, bottom = (edge * scale - shift for edge in box)
    wide, high = right - left, bottom - top
    if not half:
        wide, high = max(wide, 1.0), max(high, 1.0)
    rows, columns = node.get("output_height", 1), node.get("output_width", 1)
    ratio = node.get("sampling_ratio", 0)
    per_row = ratio or max(math.ceil(high / rows), 1)
    per_column = ratio or max(math.ceil(wide / columns), 1)
    y = top + (torch.arange(rows * per_row, device=x.device) + 0.5) * (high / rows / per_row)
    z = left + (torch.arange(columns * per_column, device=x.device) + 0.5) * (
        wide / columns / per_column
    )
    taken = _interpolated(x, y, z)
    blocks = taken.reshape(x.shape[0], rows, per_row, columns, per_column)
    return blocks.mean((2, 4))


def _interpolated(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """X at all pairs of rows and columns; 0 more than one position outside."""
    height, width = x.shape[1:]
    outside = (rows < -1) | (rows > height)
    outside = outside[:, None] | ((columns < -1) | (columns > width))[None]
    left = _matrix(rows, height, x)
    right = _matrix(columns, width, x)
    return torch.where(outside, x.new_zeros(()), left @ x @ right.T)


def _matrix(places: Tensor, extent: int, like: Tensor) -> Tensor:
    """Weights of linear interpolation, shape (places, extent)."""
    inside = places.clamp(0, extent - 1)[:, None]
    positions = torch.arange(extent, device=places.device)
    return (1 - (positions - inside).abs()).clamp(min=0).to(like.dtype)
