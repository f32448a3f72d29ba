"""Milliseconds of one run of a network, as a function of its groups' kept counts.

What goes with a dropped section takes no time; the sum that stands at its end stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import Array, IndexArray, Vector
from onnxprune.cost import Multilinear


@dataclass(frozen=True)
class TimedLayer:
    """A layer of the network, or several that are always alike.

    Attributes:
        times: channels that each part reads and makes, of shape (rows,) both -> milliseconds.
        inputs: channels read, as a function of the counts of ``groups``.
        outputs: channels made, likewise.
        groups: the groups whose counts matter.
        gates: places among all counts of the sections that it goes with.
        weight: what the times are multiplied by.
        step: channels that they go in steps of; 1 where they are smooth.
    """

    times: Callable[[Vector, Vector], Vector]
    inputs: Multilinear
    outputs: Multilinear
    groups: IndexArray
    gates: IndexArray
    weight: float
    step: int = 1

    def __call__(self, counts: Array) -> Vector:
        """Milliseconds at kept counts of all groups, then sections; shape (rows, those).

        Rows that are here like the first one are not looked up: a search moves few groups at once.
        """
        own = counts[:, self.groups]
        other = np.flatnonzero((own != own[:1]).any(axis=1))
        rows = np.concatenate([own[:1], own[other]])
        times = self.weight * self.times(self.inputs(rows), self.outputs(rows))
        all_times = np.full(len(counts), times[0])
        all_times[other] = times[1:]
        kept: Vector = all_times * counts[:, self.gates].prod(axis=1)
        return kept


@dataclass(frozen=True)
class LatencyModel:
    """Predicted milliseconds of one run; callable as a cost, which is not multilinear.

    Attributes:
        full: measured for the unpruned network (median).
        layers: what is timed by its channels.
        others: all else, in milliseconds.
        steps: the steps that the extents of the groups' axes go in: whole blocks in the blocked
            layout; shape (groups + sections,), 1 for a section.
        sizes: full counts of the groups, and 1 for sections; of the same shape.
        timed: layers that were timed for it, those that the cache knew left out.
    """

    full: float
    layers: tuple[TimedLayer, ...]
    others: Multilinear
    steps: Vector
    sizes: Vector
    timed: int

    def __call__(self, counts: Array) -> Vector:
        """Milliseconds at kept counts of shape (..., groups + sections), shape (...).

        Counts outside the blocked layout are timed when they are first asked for.
        """
        counts = np.asarray(counts, np.float64)
        rows = counts.reshape(-1, counts.shape[-1])
        if not len(rows):
            return np.zeros(counts.shape[:-1])
        total = self.others(np.minimum(np.ceil(rows / self.steps) * self.steps, self.sizes))
        for layer in self.layers:
            total = total + layer(rows)
        times: Vector = total.reshape(counts.shape[:-1])
        return times
