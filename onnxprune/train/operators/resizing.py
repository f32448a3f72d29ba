"""Resize and Upsample: every resized axis is a product with a matrix of interpolation weights.

Row i of the matrix holds how much of each input position is in output position i. Nearest
neighbours have one weight of 1 in each row, and are gathered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from onnxprune.arrays import Array, Matrix, Vector
from onnxprune.train.operators.registry import Node, index_of, numbers, operator

HALF_PIXELS = 11
"""First opset in which Resize says how it maps positions."""


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized.

    Attributes:
        before: positions of the input.
        after: positions of the output.
        scale: output over input.
        region: for cropping, start and end of what is resized, as fractions of the axis.
        mode: nearest, linear or cubic.
        mapping: coordinate_transformation_mode.
        rounding: nearest_mode.
        slope: cubic_coeff_a.
        exclude: whether weights outside the input are left out.
        antialias: whether the filter grows when the axis shrinks.
        outside: whether positions outside the input are extrapolated by a value.
    """

    before: int
    after: int
    scale: float
    region: tuple[float, float]
    mode: str
    mapping: str
    rounding: str
    slope: float
    exclude: bool
    antialias: bool
    outside: bool


@operator("Resize", values=(1, 2, 3))
def resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """To given sizes or by given scales."""
    old = node.opset < HALF_PIXELS
    factors = numbers(roi) if old and roi is not None else None
    if not old and scales is not None and scales.numel():
        factors = numbers(scales)
    wanted = numbers(sizes) if sizes is not None and sizes.numel() else None
    regions = numbers(roi) if not old and roi is not None and roi.numel() else None
    mapping = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    rounding = "simple" if old else node.get("nearest_mode", "round_prefer_floor")
    return _resized(node, x, factors, wanted, regions, mapping, rounding)


@operator("Upsample", values=(1,))
def upsample(node: Node, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """By given scales; the older form of Resize."""
    factors = numbers(scales) if scales is not None else list(node.attributes["scales"])
    return _resized(node, x, factors, None, None, "asymmetric", "floor")


def _resized(
    node: Node,
    x: Tensor,
    factors: list[float] | None,
    sizes: list[int] | None,
    regions: list[float] | None,
    mapping: str,
    rounding: str,
) -> Tensor:
    axes = [int(axis) % x.dim() for axis in node.get("axes", range(x.dim()))]
    extents = [x.shape[axis] for axis in axes]
    if sizes is not None:
        factors, sizes = _from_sizes(node, extents, [int(size) for size in sizes])
    else:
        factors = [float(np.float32(factor)) for factor in factors or []]
        sizes = [math.floor(e * f) for e, f in zip(extents, factors, strict=True)]
    mode = str(node.get("mode", "nearest")).replace("bilinear", "linear")
    crop = mapping == "tf_crop_and_resize"
    kept: Tensor | None = None
    for place, axis in enumerate(axes):
        region = (0.0, 1.0)
        if crop and regions:
            region = (regions[place], regions[place + len(axes)])
        if sizes[place] == extents[place] and factors[place] == 1 and region == (0.0, 1.0):
            continue
        own = _Axis(
            extents[place],
            sizes[place],
            factors[place],
            region,
            mode,
            mapping,
            rounding,
            node.get("cubic_coeff_a", -0.75),
            bool(node.get("exclude_outside", 0)),
            bool(node.get("antialias", 0)),
            crop,
        )
        x = _along(x, axis, own)
        if crop:
            inside = torch.tensor(_inside(own), device=x.device)
            inside = inside.reshape([-1 if a == axis else 1 for a in range(x.dim())])
            kept = inside if kept is None else kept & inside
    if kept is None:
        return x
    return torch.where(kept, x, x.new_tensor(node.get("extrapolation_value", 0.0)))


def _from_sizes(node: Node, extents: list[int], sizes: list[int]) -> tuple[list[float], list[int]]:
    """Scales and sizes, which may have to keep the proportions."""
    scales = [size / extent for size, extent in zip(sizes, extents, strict=True)]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return scales, sizes
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [scale] * len(sizes), [math.floor(extent * scale + 0.5) for extent in extents]


def _along(x: Tensor, axis: int, own: _Axis) -> Tensor:
    if own.mode == "nearest":
        return x.index_select(axis, index_of(list(_nearest(own)), x))
    matrix = torch.tensor(_interpolation(own), dtype=x.dtype, device=x.device)
    return torch.matmul(x.movedim(axis, -1), matrix.T).movedim(-1, axis)


def _coordinates(own: _Axis) -> Vector:
    """Where every output position lies in the input; in single precision, which decides ties."""
    return np.asarray(_mapped(own), np.float64)


def _mapped(own: _Axis) -> Array:
    places, scale = np.arange(own.after, dtype=np.float32), np.float32(own.scale)
    half = (places + np.float32(0.5)) / scale - np.float32(0.5)
    if own.mapping == "asymmetric":
        return places / scale
    if own.mapping == "align_corners":
        return places * (own.before - 1) / (own.after - 1) if own.after > 1 else places * 0
    if own.mapping == "pytorch_half_pixel":
        return half if own.after > 1 else places * 0
    if own.mapping == "half_pixel_symmetric":
        adjustment = own.after / (own.scale * own.before)
        centre = own.before / 2
        return centre * (1 - adjustment) + half
    if own.mapping == "tf_crop_and_resize":
        start, end = own.region
        if own.after == 1:
            return 0.5 * (start + end) * (own.before - 1) + places
        step = (end - start) * (own.before - 1) / (own.after - 1)
        return start * (own.before - 1) + places * step
    return half


def _inside(own: _Axis) -> list[bool]:
    places = _coordinates(own)
    found: list[bool] = ((places >= 0) & (places <= own.before - 1)).tolist()
    return found


@lru_cache(maxsize=256)
def _nearest(own: _Axis) -> tuple[int, ...]:
    places = _coordinates(own)
    rounded = {
        "round_prefer_floor": np.ceil(places - 0.5),
        "round_prefer_ceil": np.floor(places + 0.5),
        "floor": np.floor(places),
        "ceil": np.ceil(places),
        "simple": np.ceil(places) if own.scale < 1 else np.trunc(places),
    }[own.rounding]
    return tuple(int(place) for place in np.clip(rounded, 0, own.before - 1))


@lru_cache(maxsize=256)
def _interpolation(own: _Axis) -> Matrix:
    """The weights, shape (after, before)."""
    places = _coordinates(own)
    stretch = max(1.0, 1 / own.scale) if own.antialias else 1.0
    reach = (1 if own.mode == "linear" else 2) * stretch
    taps = np.arange(math.floor(-reach), math.ceil(reach) + 2)
    positions = np.floor(places)[:, None] + taps
    distances = np.abs(positions - places[:, None]) / stretch
    weights = _triangle(distances) if own.mode == "linear" else _cubic(distances, own.slope)
    outside = (positions < 0) | (positions > own.before - 1)
    if own.exclude:
        weights = np.where(outside, 0.0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((own.after, own.before))
    rows = np.broadcast_to(np.arange(own.after)[:, None], positions.shape)
    columns = np.clip(positions, 0, own.before - 1).astype(np.int64)
    np.add.at(matrix, (rows, columns), weights)
    return matrix


def _triangle(distances: Matrix) -> Matrix:
    return np.maximum(1 - distances, 0)


def _cubic(distances: Matrix, slope: float) -> Matrix:
    """Keys' cubic convolution kernel."""
    d = distances
    near = ((slope + 2) * d - (slope + 3)) * d * d + 1
    far = ((slope * d - 5 * slope) * d + 8 * slope) * d - 4 * slope
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
