"""From channels to groups: channels on the same axes, and axes whose parts stay balanced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray
from onnxprune.components import Components

UNEVEN = "grouped convolutions divide its channels into parts of different sizes"


@dataclass(frozen=True)
class Cell:
    """Channels that compete with each other.

    Attributes:
        channels: component numbers, in order of first appearance, shape (units,).
        parts: balanced part of each, shape (units,).
    """

    channels: IndexArray
    parts: IndexArray


def same_axes(
    axes: Sequence[IndexArray], components: Components, prunable: IndexArray
) -> list[IndexArray]:
    """Sets of prunable channels that lie on exactly the same axes, on each equally often.

    Args:
        axes: the slots of every axis.
        components: the channels.
        prunable: the channels to divide up.
    """
    signature = np.zeros((components.count, 2), np.uint64)
    keys = np.random.default_rng(0)  # 128-bit random sums: equal sets of axes, equal signatures
    for slots in axes:
        key = keys.integers(0, 2**63, size=2, dtype=np.uint64)
        channels, times = np.unique(components.on(slots), return_counts=True)
        signature[channels] += times.astype(np.uint64)[:, None] * key
    first = np.full(components.count, components.label.size)
    np.minimum.at(first, components.label, np.arange(components.label.size))
    cells: dict[tuple[int, int], list[int]] = {}
    for channel in prunable[np.argsort(first[prunable], kind="stable")].tolist():
        cells.setdefault(tuple(signature[channel].tolist()), []).append(channel)
    return [np.array(cell, np.int64) for cell in cells.values()]


def merge_balanced(
    components: Components, cells: Sequence[IndexArray], reasons: dict[int, str]
) -> list[Cell]:
    """Merge cells that share a balanced axis, and give every channel its part.

    Several partitions of one set are refined into their common parts, which satisfies them all;
    the cells themselves count as a partition, so that none of them can lose its last channel.
    A set whose parts differ in size, or that shares a balanced axis with frozen channels, is
    frozen as well: its channels are left out and added to ``reasons``.
    """
    home = {int(channel): index for index, cell in enumerate(cells) for channel in cell}
    parent = np.arange(len(cells))
    part_key: dict[int, tuple[int, ...]] = {c: (index,) for c, index in home.items()}
    spoilt: dict[int, str] = {}
    for channels, parts in components.balanced:
        numbers = np.arange(channels.size) * parts // channels.size
        for channel, number in zip(channels.tolist(), numbers.tolist(), strict=True):
            part_key[channel] = (*part_key.get(channel, ()), number)
        roots = np.unique([parent[home[c]] for c in channels.tolist() if c in home])
        if not roots.size:
            continue
        parent[np.isin(parent, roots)] = roots[0]
        outside = [c for c in channels.tolist() if c not in home]
        if outside:
            spoilt[int(roots[0])] = reasons.get(outside[0], UNEVEN)
        elif channels.size % parts:
            spoilt[int(roots[0])] = UNEVEN
    refused = {int(parent[index]): reason for index, reason in spoilt.items()}
    merged = []
    for root in np.unique(parent).tolist():
        members = np.concatenate([cells[i] for i in np.flatnonzero(parent == root).tolist()])
        cell = Cell(members, _part_numbers(members, part_key))
        uneven = np.unique(np.bincount(cell.parts)).size > 1
        if root in refused or uneven:
            reasons.update(dict.fromkeys(members.tolist(), refused.get(root, UNEVEN)))
        else:
            merged.append(cell)
    return merged


def _part_numbers(members: IndexArray, part_key: dict[int, tuple[int, ...]]) -> IndexArray:
    keys = [part_key.get(channel, ()) for channel in members.tolist()]
    number = {key: index for index, key in enumerate(sorted(set(keys)))}
    return np.array([number[key] for key in keys], np.int64)
