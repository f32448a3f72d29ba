"""Which kept counts a group may have, so that onnxruntime's fast layout is not lost.

onnxruntime computes a float convolution in a blocked channel layout of block B (16 with AVX-512F,
8 on other x86-64) if it reads fewer than B channels or a multiple of 4, if a depthwise one has a
multiple of 4, and if a grouped one reads and makes a multiple of B per part. There its time goes in
steps of B channels; for a bound on time only the tops of the steps are of use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.arrays import Array, IndexArray
from onnxprune.linear_map import LinearMap
from onnxprune.network import ChannelGroup, Network

Align = int | Literal["auto"]

FLOOR_DIVISOR = 10
"""Every group keeps at least one in so many of its channels."""

GPU_MULTIPLE = 8
"""Counts that suit a GPU are multiples of this."""

WHOLE = 4
"""What convolutions of several channels read in the blocked layout is a multiple of this."""

MOST_LEVELS = 64
"""Useful counts of one group: more of them make the search slower and no better."""

OTHER_STATES = 5
"""Sizes of all other groups at which a count may prove useful."""

FREE = 1e-9
"""Relative differences of time below this are rounding."""


def block_size() -> int:
    """Channels per block of onnxruntime's layout on this processor."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return 16 if {"AVX512F", "X86_V4", "AVX512_SKX"} & set(found) else 8


def allowed_counts(
    group: ChannelGroup,
    network: Network,
    align: Align = "auto",
    block: int | None = None,
    *,
    gpu: bool = False,
) -> IndexArray:
    """The counts a group may keep, ascending; the last is its size.

    Args:
        group: the group.
        network: what it belongs to.
        align: a number N for multiples of N; "auto" for counts that leave no convolution out of
            the blocked layout that was in it.
        block: channels per block; None for this processor's.
        gpu: whether "auto" is for a GPU, where it means multiples of 8.
    """
    parts = group.part_count
    if align == "auto" and gpu:
        align = GPU_MULTIPLE
    floor = math.ceil(max(1, group.size / FLOOR_DIVISOR) / parts) * parts
    counts = np.arange(floor, group.size + 1, parts)
    if align == "auto":
        fits = _fits_layout(group, network, counts, block or block_size())
    else:
        fits = counts % align == 0
    chosen: IndexArray = counts[fits | (counts == group.size)]
    return chosen


def useful_counts(
    cost: Callable[[Array], Array], allowed: Sequence[IndexArray]
) -> list[IndexArray]:
    """The allowed counts of every group that are worth having for a bound on this cost.

    A count is of no use if a larger one costs no more: the larger one keeps more for nothing. Which
    these are depends on the others; it is asked with all others at five fractions of their allowed
    counts, and a count that is of use at any of them stays (derived here).

    Args:
        cost: counts of shape (..., groups) -> cost of shape (...).
        allowed: the allowed counts of every group, ascending; the last is its size.

    Returns:
        For every group some of its allowed counts, 64 at most, its smallest useful one and its
        size among them.
    """
    states = [
        np.array([own[round(fraction * (own.size - 1))] for own in allowed], np.int64)
        for fraction in np.linspace(0, 1, OTHER_STATES)
    ]
    chosen = []
    for group, own in enumerate(allowed):
        useful = np.zeros(own.size, np.bool_)
        for others in states:
            rows = np.tile(others, (own.size, 1))
            rows[:, group] = own
            times = np.asarray(cost(rows), np.float64)
            larger = np.append(np.minimum.accumulate(times[::-1])[::-1][1:], np.inf)
            useful |= times < larger * (1 - FREE)
        chosen.append(_thinned(own[useful | (own == own[-1])]))
    return chosen


def _thinned(counts: IndexArray) -> IndexArray:
    """At most 64 of some ascending counts, evenly, with both ends."""
    if counts.size <= MOST_LEVELS:
        return counts
    picked: IndexArray = counts[np.linspace(0, counts.size - 1, MOST_LEVELS).round().astype(int)]
    return picked


def _fits_layout(
    group: ChannelGroup, network: Network, counts: IndexArray, block: int
) -> NDArray[np.bool_]:
    fits = np.ones(counts.size, np.bool_)
    for name in {*group.consumers, *group.producers}:
        linear_map = network.consumers.get(name) or network.producers[name]
        if linear_map.node.op != "Conv":
            continue
        for tensor, axis in _convolution_axes(linear_map):
            channels = network.channels(tensor, axis)
            own = np.isin(channels, group.channels).sum()
            if own:
                total = channels.size - own + own * counts // group.size
                fits &= _in_layout(linear_map, total, block)
    return fits


def _convolution_axes(linear_map: LinearMap) -> list[tuple[gs.Tensor, int]]:
    """The axes whose extents decide about a convolution's layout."""
    x, y = linear_map.x, linear_map.y
    return [(x, 1), (y, 1)] if linear_map.groups > 1 else [(x, 1)]


def _in_layout(linear_map: LinearMap, total: IndexArray, block: int) -> NDArray[np.bool_]:
    """Whether counts keep a convolution in the layout; all do where it was not in it."""
    per_part = total if _depthwise(linear_map) else total // linear_map.groups
    fits = in_layout(linear_map, per_part, per_part, block)
    return fits if fits[-1] else np.ones_like(fits)


def in_layout(
    linear_map: LinearMap, inputs: IndexArray, outputs: IndexArray, block: int
) -> NDArray[np.bool_]:
    """Whether a two-dimensional convolution of so many channels is in the blocked layout.

    Args:
        linear_map: the convolution.
        inputs: channels that each of its parts reads; for a depthwise one, its channels.
        outputs: channels that each part makes, of the same shape.
        block: channels per block.
    """
    if linear_map.groups == 1:
        fits = (inputs < block) | (inputs % WHOLE == 0)
    elif _depthwise(linear_map):
        fits = inputs % WHOLE == 0
    else:
        fits = (inputs % block == 0) & (outputs % block == 0)
    return np.asarray(fits, np.bool_)


def _depthwise(linear_map: LinearMap) -> bool:
    """Whether a convolution makes one channel of each channel."""
    return bool(linear_map.weight.shape[:2] == (linear_map.groups, 1))
