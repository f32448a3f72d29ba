"""From channels to groups: channels on the same axes, and axes whose parts stay balanced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from onnxprune.arrays import IndexArray
from onnxprune.components import Components

UNEVEN = "grouped convolutions divide its channels into parts of different sizes"


@dataclass(frozen=True)
class Cell:
    """Channels that compete with each other.

    Attributes:
        channels: component numbers, in order of first appearance, shape (channels,).
        units: which unit every channel belongs to, shape (channels,); units go as a whole, and
            nearly always are one channel each.
        parts: balanced part of each unit, shape (units,).
    """

    channels: IndexArray
    units: IndexArray
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
    Two crossed partitions whose common parts differ in size are satisfied by units that take one
    channel from every part of both. Other sets whose parts differ in size, and those that share a
    balanced axis with frozen channels, are frozen as well: their channels are left out and added
    to ``reasons``.
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
        keys = [part_key[channel] for channel in members.tolist()]
        cell = None if root in refused else _common_parts(members, keys) or _across(members, keys)
        if cell is None:
            reasons.update(dict.fromkeys(members.tolist(), refused.get(root, UNEVEN)))
        else:
            merged.append(cell)
    return merged


def _common_parts(members: IndexArray, keys: list[tuple[int, ...]]) -> Cell | None:
    """Every channel a unit, the common parts of all partitions as parts; None if they differ."""
    number = {key: index for index, key in enumerate(sorted(set(keys)))}
    parts = np.array([number[key] for key in keys], np.int64)
    if np.unique(np.bincount(parts)).size > 1:
        return None
    return Cell(members, np.arange(members.size), parts)


def _across(members: IndexArray, keys: list[tuple[int, ...]]) -> Cell | None:
    """Units with one channel from every part of two partitions; None where there are others.

    Parts of the one are rows, parts of the other columns, channels the edges between them: in a
    bipartite graph in which all have the same number of edges, these divide into perfect matchings
    (Koenig 1916).
    """
    table = np.array(keys) if len({len(key) for key in keys}) == 1 else np.empty((0, 0), np.int64)
    if table.shape[1] != 3 or np.unique(table[:, 0]).size > 1:
        return None
    rows, columns = table[:, 1], table[:, 2]
    edges = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(edges, (rows, columns), 1)
    count = members.size // len(edges)
    regular = (edges.sum(axis=0) == count).all() and (edges.sum(axis=1) == count).all()
    if len(edges) != edges.shape[1] or not regular:
        return None
    units = np.full(members.size, -1)
    for unit in range(count):
        for row, column in enumerate(maximum_bipartite_matching(csr_array(edges), "column")):
            edge = np.flatnonzero((rows == row) & (columns == column) & (units < 0))[0]
            units[edge] = unit
            edges[row, column] -= 1
    return Cell(members, units, np.zeros(count, np.int64))
