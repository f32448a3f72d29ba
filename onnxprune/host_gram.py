"""The host half of statistics: the Gram of an activation, in NumPy.

It gives what ``probe`` gives, from an activation that left the runtime. It shares no step with it
but the choice of positions, sums in float64, and so serves as its oracle.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, IndexArray
from onnxprune.linear_map import Window
from onnxprune.sampling import GramRequest, positions, window_extents


def host_gram(
    request: GramRequest, activation: Array, uniforms: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The Grams of one batch, shape (parts, features + 1, features + 1).

    Args:
        request: which features, from how many positions.
        activation: the activation named by the request, any float type.
        uniforms: the shard's numbers, at least as many as the request has points.
    """
    rows = feature_rows(request, activation, uniforms).astype(np.float64)
    ones = np.ones((*rows.shape[:2], 1))
    rows = np.concatenate([rows, ones], axis=2)
    with np.errstate(invalid="ignore"):  # an infinite activation shows in the result
        gram: NDArray[np.float64] = rows.transpose(0, 2, 1) @ rows
    return gram


def feature_rows(request: GramRequest, activation: Array, uniforms: NDArray[np.float32]) -> Array:
    """The rows a Gram is made of, without the constant, shape (parts, rows, features).

    Args:
        request: which features, from how many positions.
        activation: the activation named by the request.
        uniforms: the shard's numbers, at least as many as the request has points.
    """
    if request.spec.window is None:
        return _channel_rows(request, activation, uniforms)
    return _patch_rows(request.spec.window, request, activation, uniforms)


def _patch_rows(
    window: Window, request: GramRequest, activation: Array, uniforms: NDArray[np.float32]
) -> Array:
    """Patches, shape (parts, rows, features), features ordered (channel, tap)."""
    sizes = activation.shape[2:]
    pads = zip(sizes, window.pads_begin, window.pads_end, strict=True)
    extents = window_extents(window, tuple(map(sum, pads)))
    total = math.prod(extents)
    values = activation.reshape(*activation.shape[:2], -1)
    if request.picked is not None:
        samples, flat = np.divmod(request.picked, total)
        places, inside = _tap_places(window, flat, extents, sizes)
        found = np.where(inside[:, :, None], values[samples[:, None], :, places], 0)
        rows = np.moveaxis(found, 1, 2)  # of (rows, taps, channels)
    else:
        flat = positions(uniforms, request.points, total)
        places, inside = _tap_places(window, flat, extents, sizes)
        sampled = np.take(values, places.reshape(-1), axis=2)
        sampled = sampled.reshape(*values.shape[:2], *places.shape)
        if not inside.all():
            sampled[:, :, ~inside] = 0
        rows = sampled.transpose(0, 2, 1, 3)  # of (samples, channels, points, taps)
    rows = rows.reshape(-1, request.spec.parts, request.features)
    result: Array = rows.transpose(1, 0, 2)
    return result


def _tap_places(
    window: Window, flat: IndexArray, extents: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[IndexArray, NDArray[np.bool_]]:
    """Where the taps of windows with these numbers are, and whether that is no padding.

    Returns:
        Two arrays of shape (windows, taps): places on the flattened map, and which of them lie on
        it; the others stand at its border.
    """
    taps = np.indices(window.kernel).reshape(len(window.kernel), -1)
    places = np.zeros((flat.size, taps.shape[1]), np.int64)
    inside = np.ones(places.shape, bool)
    for axis, start in enumerate(np.unravel_index(flat, extents)):
        offsets = taps[axis] * window.dilations[axis] - window.pads_begin[axis]
        place = start[:, None] * window.strides[axis] + offsets
        inside &= (place >= 0) & (place < sizes[axis])
        places = places * sizes[axis] + place.clip(0, sizes[axis] - 1)
    return places, inside


def _channel_rows(request: GramRequest, activation: Array, uniforms: NDArray[np.float32]) -> Array:
    """Channel values, shape (parts, rows, features); the first of the other axes counts samples."""
    spec = request.spec
    own = [axis for axis in (spec.apart, spec.axis) if axis is not None]
    values = activation.transpose(*spec.row_axes, *own)
    samples = values.shape[0] if values.ndim > len(own) else 1
    values = values.reshape(samples, -1, request.extent)
    if spec.fold_major:
        folded = values.reshape(*values.shape[:2], request.channels, spec.fold)
        values = np.moveaxis(folded, 2, 3)
    values = values.reshape(values.shape[0], -1, request.channels)
    if request.picked is not None:
        sampled = values.reshape(-1, request.channels)[request.picked]
    else:
        sampled = values[:, positions(uniforms, request.points, values.shape[1])]
    rows = sampled.reshape(-1, spec.parts, request.features)
    return rows.transpose(1, 0, 2)
