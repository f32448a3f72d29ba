"""Rows of what a layer multiplies, from a few positions of a few samples of a batch.

Positions are chosen first, and only what the layer reads there is gathered: a convolution's
patches are never all laid out. ``FeatureSpec`` says what a row is, and in what order its features
come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.sampling import window_extents
from onnxprune.train.decorrelation_options import POINTS, SHARE


@dataclass(frozen=True)
class RowSampler:
    """How many rows are taken of a batch.

    Attributes:
        share: of the samples of a batch, at least one.
        points: positions of each of them, the same ones; all where there are fewer.
    """

    share: float = SHARE
    points: int = POINTS

    def rows(self, spec: FeatureSpec, activation: Tensor, generator: torch.Generator) -> Tensor:
        """Rows in float32, without gradients, shape (parts, rows, features).

        Args:
            spec: what a row is.
            activation: the tensor it names.
            generator: of the choice, on the CPU.
        """
        with torch.no_grad():
            extent = activation.shape[_samples_axis(spec)]
            count = max(1, round(self.share * extent))
            chosen = _choice(extent, count, generator).to(activation.device)
            some = activation.detach().index_select(_samples_axis(spec), chosen).float()
            if spec.window is not None:
                return _patches(spec.window, spec.parts, some, self.points, generator)
            return _channels(spec, some, self.points, generator)


def _samples_axis(spec: FeatureSpec) -> int:
    return 0 if spec.window is not None else spec.row_axes[0]


def _choice(total: int, count: int, generator: torch.Generator) -> Tensor:
    """Different numbers below ``total``, in order; all of them if there are no more."""
    if count >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:count].sort().values


def _channels(spec: FeatureSpec, values: Tensor, points: int, generator: torch.Generator) -> Tensor:
    """Channel values, as ``FeatureSpec`` describes them without a window."""
    own = [axis for axis in (spec.apart, spec.axis) if axis is not None]
    extent = math.prod(values.shape[axis] for axis in own)
    values = values.permute(*spec.row_axes, *own)
    values = values.reshape(values.shape[0], -1, extent)
    if spec.fold > 1:
        samples, positions = values.shape[:2]
        channels = extent // spec.fold
        inner = (channels, spec.fold) if spec.fold_major else (spec.fold, channels)
        values = values.reshape(samples, positions, *inner)
        values = values.transpose(2, 3) if spec.fold_major else values
        values = values.reshape(samples, positions * spec.fold, channels)
    places = _choice(values.shape[1], points, generator).to(values.device)
    rows = values[:, places].reshape(-1, spec.parts, values.shape[2] // spec.parts)
    return rows.transpose(0, 1).contiguous()


def _patches(
    window: Window, parts: int, values: Tensor, points: int, generator: torch.Generator
) -> Tensor:
    """Zero-padded patches at the chosen positions."""
    pads = zip(reversed(window.pads_begin), reversed(window.pads_end), strict=True)
    values = functional.pad(values, [pad for pair in pads for pad in pair])
    sizes = tuple(values.shape[2:])
    extents = window_extents(window, sizes)
    starts = torch.unravel_index(_choice(math.prod(extents), points, generator), extents)
    taps = torch.cartesian_prod(*[torch.arange(extent) for extent in window.kernel])
    taps = taps.reshape(-1, len(sizes))
    places = torch.zeros(len(starts[0]), len(taps), dtype=torch.int64)
    for axis, size in enumerate(sizes):
        offsets = taps[:, axis] * window.dilations[axis]
        places = places * size + starts[axis][:, None] * window.strides[axis] + offsets
    samples, channels = values.shape[:2]
    flat = places.reshape(-1).to(values.device)
    rows = values.flatten(2)[:, :, flat].reshape(samples, channels, *places.shape)
    rows = rows.transpose(1, 2).reshape(-1, parts, channels // parts * len(taps))
    return rows.transpose(0, 1).contiguous()
