"""Which kept counts a group may have, so that onnxruntime's fast layout is not lost.

onnxruntime computes a float convolution in a blocked channel layout of block B (16 with AVX-512F,
8 on other x86-64) if it reads fewer than B channels or a multiple of 4, if a depthwise one has a
multiple of 4, and if a grouped one reads and makes a multiple of B per part.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.arrays import IndexArray
from onnxprune.linear_map import LinearMap
from onnxprune.network import ChannelGroup, Network

Align = int | Literal["auto"]

FLOOR_DIVISOR = 10
"""Every group keeps at least one in so many of its channels."""


def block_size() -> int:
    """Channels per block of onnxruntime's layout on this processor."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return 16 if {"AVX512F", "X86_V4", "AVX512_SKX"} & set(found) else 8


def allowed_counts(
    group: ChannelGroup, network: Network, align: Align = "auto", block: int | None = None
) -> IndexArray:
    """The counts a group may keep, ascending; the last is its size.

    Args:
        group: the group.
        network: what it belongs to.
        align: a number N for multiples of N; "auto" for counts that leave no convolution out of
            the blocked layout that was in it.
        block: channels per block; None for this processor's.
    """
    parts = group.part_count
    floor = math.ceil(max(1, group.size / FLOOR_DIVISOR) / parts) * parts
    counts = np.arange(floor, group.size + 1, parts)
    if align == "auto":
        fits = _fits_layout(group, network, counts, block or block_size())
    else:
        fits = counts % align == 0
    chosen: IndexArray = counts[fits | (counts == group.size)]
    return chosen


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
    if linear_map.groups == 1:
        fits = (total < block) | (total % 4 == 0)
    elif linear_map.weight.shape[:2] == (linear_map.groups, 1):
        fits = total % 4 == 0
    else:
        fits = total // linear_map.groups % block == 0
    return fits if fits[-1] else np.ones_like(fits)
