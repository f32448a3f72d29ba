"""Which widths of a layer are timed, and what is between them.

onnxruntime's blocked convolutions take whole blocks: within a step of B channels time is that of
the step's top. From the fifth block on its kernels make four blocks at a time, so timings are
multiples of four blocks there. All else is smooth: linear between timings (derived here, and
measured by tools/bench_latency.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector

INPUT_LEVELS = 4
"""Numbers of channels read that are timed, above one block; time is nearly linear in them."""
FEW_LEVELS = 3
"""The same below one block."""
OUTPUT_LEVELS = 12
"""Numbers of channels made that are timed."""
SMOOTH_LEVELS = 5
"""The same of a layer whose time has no steps, for either number."""
AT_ONCE = 4
"""Blocks of output channels that a kernel makes at once."""

MAX_TIMINGS = (INPUT_LEVELS + FEW_LEVELS + 1) * OUTPUT_LEVELS + SMOOTH_LEVELS**2
"""Timings that one layer takes at most, those outside the blocked layout included."""


@dataclass(frozen=True)
class Table:
    """Times of a layer at some widths.

    Attributes:
        inputs: numbers of channels read, ascending, shape (inputs,).
        outputs: numbers of channels made, ascending, shape (outputs,).
        times: milliseconds, shape (inputs, outputs).
        block: channels per step; 1 for none.
    """

    inputs: IndexArray
    outputs: IndexArray
    times: Matrix
    block: int = 1

    def __call__(self, inputs: IndexArray, outputs: IndexArray) -> Vector:
        """Milliseconds for numbers of channels of shape (rows,); beyond the ends that of the end.

        Fewer inputs than a block are read as they are, without steps.
        """
        i, next_i, u = self._reading.at(inputs)
        o, next_o, v = self._making.at(outputs)
        low = self.times[i, o] * (1 - v) + self.times[i, next_o] * v
        high = self.times[next_i, o] * (1 - v) + self.times[next_i, next_o] * v
        mixed: Vector = low * (1 - u) + high * u
        return mixed

    @cached_property
    def _reading(self) -> _Places:
        counts = np.arange(self.inputs[-1] + 1)
        return _Places.of(self.inputs, np.where(counts < self.block, counts, self._tops(counts)))

    @cached_property
    def _making(self) -> _Places:
        return _Places.of(self.outputs, self._tops(np.arange(self.outputs[-1] + 1)))

    def _tops(self, counts: IndexArray) -> IndexArray:
        """The tops of the steps that counts are on."""
        return -(-counts // self.block) * self.block


@dataclass(frozen=True)
class _Places:
    """Where every count lies among some levels; shape (counts,), from count 0 to the last level.

    Attributes:
        below: the level below the count.
        above: the next one, or the same at the end.
        share: how far the count is on the way between them, 0 ... 1.
    """

    below: IndexArray
    above: IndexArray
    share: Vector

    @classmethod
    def of(cls, levels: IndexArray, counts: IndexArray) -> _Places:
        """The places of counts, those beyond the ends at the ends."""
        inside = np.clip(counts, levels[0], levels[-1])
        below = np.searchsorted(levels, inside, side="right") - 1
        above = np.minimum(below + 1, levels.size - 1)
        distance = np.maximum(levels[above] - levels[below], 1)
        return cls(below, above, (inside - levels[below]) / distance)

    def at(self, counts: IndexArray) -> tuple[IndexArray, IndexArray, Vector]:
        """Level below, level above and share of counts of any shape."""
        known = np.minimum(counts, self.below.size - 1)
        return self.below[known], self.above[known], self.share[known]


def measured(
    inputs: IndexArray,
    outputs: IndexArray,
    time: Callable[[list[tuple[int, int]]], list[float]],
    block: int = 1,
) -> Table:
    """The table of a layer: a timing for every pair of numbers.

    More channels never take less time in one layout; where they seem to, it is noise.
    """
    pairs = [(int(i), int(o)) for i in inputs for o in outputs]
    times = np.reshape(time(pairs), (inputs.size, outputs.size))
    above = np.minimum.accumulate(times[::-1, ::-1], axis=0)
    above = np.minimum.accumulate(above, axis=1)[::-1, ::-1]
    return Table(inputs, outputs, above, block)


def input_levels(low: int, high: int, block: int) -> IndexArray:
    """Numbers of channels read that are timed in the blocked layout, of low ... high."""
    few = np.linspace(low, min(high, block - 1), FEW_LEVELS) if low < block else np.zeros(0)
    if high < block:
        return _whole(few)
    least, most = -(-max(low, block) // block), high // block
    steps = _whole(np.linspace(least, max(most, least), INPUT_LEVELS)) * block
    return _whole(np.concatenate([few, np.minimum(steps, high), [high]]))


def output_levels(low: int, high: int, block: int) -> IndexArray:
    """Numbers of channels made that are timed in the blocked layout, of low ... high."""
    blocks = np.arange(-(-low // block), -(-high // block) + 1)
    if blocks.size > OUTPUT_LEVELS:
        few, many = blocks[blocks < AT_ONCE], blocks[blocks % AT_ONCE == 0]
        room = OUTPUT_LEVELS - few.size - 2  # the ends
        picked = many[_whole(np.linspace(0, many.size - 1, room))] if many.size else many
        blocks = np.concatenate([few, picked, blocks[[0, -1]]])
    return _whole(np.minimum(blocks * block, high))


def smooth_levels(low: int, high: int, avoided: int = 0) -> IndexArray:
    """Numbers of channels that are timed where time has no steps, of low ... high.

    Args:
        low: the smallest.
        high: the largest.
        avoided: none is a multiple of this, where there is a choice.
    """
    levels = _whole(np.linspace(low, high, SMOOTH_LEVELS))
    if avoided > 1 and high > low:
        beside = np.where(levels > low, levels - 1, levels + 1)
        levels = np.where(levels % avoided == 0, beside, levels)
    return _whole(levels)


def _whole(levels: Vector | IndexArray) -> IndexArray:
    """Ascending whole numbers, each once."""
    return np.unique(np.rint(levels).astype(np.int64))
