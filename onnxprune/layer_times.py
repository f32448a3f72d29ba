"""The time of one layer as a function of how many channels it reads and makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxprune.alignment import FLOOR_DIVISOR, GPU_MULTIPLE, WHOLE, in_layout
from onnxprune.arrays import IndexArray, Vector
from onnxprune.kernel_timer import Timer
from onnxprune.lattice import Table, input_levels, measured, output_levels, smooth_levels
from onnxprune.micro_model import Layer

IMAGE_RANK = 4
"""Axes of what a blocked convolution reads: it is two-dimensional."""


@dataclass(frozen=True)
class LayerTimes:
    """Accumulator: the tables of a layer, timed when they are first asked for.

    Channels are those of one part, as ``Layer`` has them.

    Attributes:
        layer: the layer.
        timer: times micro models.
        block: channels per block of onnxruntime's layout; 0 where it has none, on a GPU.
    """

    layer: Layer
    timer: Timer
    block: int

    @property
    def step(self) -> int:
        """Channels that time goes in steps of; 1 where it is smooth."""
        return (self.block or GPU_MULTIPLE) if self._can_fit else 1

    @cached_property
    def blocked(self) -> Table:
        """Times in the blocked layout, or, where there is none, in steps that suit a GPU."""
        (low, high), (least, most) = self._ranges
        step = self.step
        if self.block and self.layer.parts == 1 and high > step:
            high -= high % WHOLE  # what is read in the layout
        outputs = output_levels(least, most, step)
        if self.layer.depthwise:
            return self._column(output_levels(low, high, step), step)
        if self.layer.parts > 1:  # whole blocks only: nothing is in between
            inputs = output_levels(low, high, step)
            return measured(inputs, outputs, self._times, 1)
        return measured(input_levels(low, high, step), outputs, self._times, step)

    @cached_property
    def plain(self) -> Table:
        """Times outside of the blocked layout, which are smooth."""
        (low, high), (least, most) = self._ranges
        if self.layer.depthwise:
            return self._column(smooth_levels(low, high, self._avoided), 1)
        if self._avoided and self.layer.parts == 1:
            low = min(max(low, self.block + 1), high)
        inputs = smooth_levels(low, high, self._avoided)
        return measured(inputs, smooth_levels(least, most), self._times)

    def __call__(self, inputs: Vector, outputs: Vector) -> Vector:
        """Milliseconds for numbers of channels per part; all of shape (rows,)."""
        read, made = np.rint(inputs).astype(np.int64), np.rint(outputs).astype(np.int64)
        fits = self._fits(read, made)
        if self.layer.depthwise:
            made = np.zeros_like(read)
        if fits.all():
            return self.blocked(read, made)
        if not fits.any():
            return self.plain(read, made)
        return np.where(fits, self.blocked(read, made), self.plain(read, made))

    def _fits(self, read: IndexArray, made: IndexArray) -> NDArray[np.bool_]:
        """Where the layer is in the blocked layout."""
        if not self.block or not self._can_fit:
            return np.full(read.shape, self._can_fit)
        return in_layout(self.layer.linear_map, read, made, self.block)

    @property
    def _can_fit(self) -> bool:
        """Whether there is a kernel for such a layer that takes whole blocks."""
        own = self.layer.linear_map
        if not self.block:
            return bool(own.node.op == "Conv")
        floats = own.weight.values.dtype == np.float32
        return bool(own.node.op == "Conv" and len(self.layer.x) == IMAGE_RANK and floats)

    @property
    def _avoided(self) -> int:
        """Multiples of this would be in the blocked layout."""
        if not self._can_fit or not self.block:
            return 0
        return WHOLE if self.layer.parts == 1 else self.block

    @property
    def _ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The smallest and the full number of channels read and made."""
        own, parts = self.layer.linear_map, self.layer.parts
        read, made = own.inputs // parts, own.outputs // parts
        return (-(-read // FLOOR_DIVISOR), read), (-(-made // FLOOR_DIVISOR), made)

    def _column(self, levels: NDArray[np.int64], step: int) -> Table:
        """A table over one number of channels, which the layer reads and makes."""
        return measured(levels, np.zeros(1, np.int64), self._times, step)

    def _times(self, widths: Sequence[tuple[int, int]]) -> list[float]:
        return self.timer.layers([self.layer.at(inputs, outputs) for inputs, outputs in widths])
