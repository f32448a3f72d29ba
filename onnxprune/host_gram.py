"""The host half of statistics: the Gram of an activation, in NumPy.

It gives what ``probe`` gives, from an activation that left the runtime. It shares no step with it
but the choice of positions, sums in float64, and so serves as its oracle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array
from onnxprune.linear_map import Window
from onnxprune.sampling import GramRequest, positions


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
    spatial = tuple(range(2, activation.ndim))
    pads = zip(window.pads_begin, window.pads_end, strict=True)
    padded = np.pad(activation, [(0, 0), (0, 0), *pads])
    reach = tuple(d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilations, strict=True))
    patches = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=spatial)
    # the view's axes: samples, channels, one start per spatial axis, one tap per spatial axis
    steps = (1, 1, *window.strides, *window.dilations)
    patches = patches[tuple(slice(None, None, step) for step in steps)]
    extents = patches.shape[2 : activation.ndim]
    total = int(np.prod(extents))
    if request.picked is not None:
        samples, flat = np.divmod(request.picked, total)
        places = np.unravel_index(flat, extents)
        sampled = np.moveaxis(patches, 1, -1)[(samples, *places)]  # (rows, *kernel, channels)
        rows = np.moveaxis(sampled, -1, 1)
    else:
        places = np.unravel_index(positions(uniforms, request.points, total), extents)
        sampled = np.moveaxis(patches, (0, 1), (-2, -1))[places]
        rows = np.moveaxis(sampled, (-2, -1), (0, 2))  # of (points, *kernel, samples, channels)
    rows = rows.reshape(-1, request.spec.parts, request.features)
    result: Array = rows.transpose(1, 0, 2)
    return result


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
