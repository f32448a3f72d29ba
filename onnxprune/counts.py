"""How many indices of an axis survive, as a function of the groups' kept counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray, Vector
from onnxprune.network import FROZEN, Network


@dataclass(frozen=True)
class Count:
    """A factor of a cost: constant + slopes @ counts."""

    constant: float
    slopes: Vector


Product = tuple[Count, ...]
Sum = Sequence[Product]
"""How many indices of an axis survive: a sum of products, of one factor where nothing is a grid."""


def expand(factors: Sequence[Sum]) -> list[Product]:
    """The product of sums as a sum of products."""
    return [tuple(chain.from_iterable(pick)) for pick in product(*factors)]


class AxisCounter:
    """Turns axes into counts of surviving indices."""

    def __init__(self, network: Network) -> None:
        self.sizes: Vector = np.array([g.size for g in network.groups], np.float64)
        self._network = network
        self._size = network.size
        self._group_of = np.repeat(np.arange(self.sizes.size), self.sizes.astype(np.int64))
        self._shared = dict(_shared_axes(network))

    def count(self, tensor: gs.Tensor, axis: int) -> Sum:
        """How many indices of an axis survive."""
        if (id(tensor), axis) in self._shared:
            activation, channel_axis, parts = self._shared[id(tensor), axis]
            (whole,) = self.count(activation, channel_axis)
            if not whole[0].constant and not whole[0].slopes.any():  # an input of unknown extent
                return self.fixed(float(tensor.shape[axis]))
            return [(Count(whole[0].constant / parts, whole[0].slopes / parts),)]
        if self._network.is_frozen(tensor, axis):
            extent = tensor.shape[axis] if tensor.shape is not None else 0
            return self.fixed(float(extent) if isinstance(extent, int) else 0.0)
        channels = self._network.channels(tensor, axis)
        products = self._network.products[channels[channels >= self._size] - self._size]
        owners = self._group_of[channels[(channels != FROZEN) & (channels < self._size)]]
        frozen = float((channels == FROZEN).sum())
        terms = [(Count(frozen, self._shares(owners)),)]
        return [*terms, *self._grids(products)] if frozen or owners.size else self._grids(products)

    def _shares(self, owners: IndexArray) -> Vector:
        """Indices per unit of every group, for indices of these groups."""
        entries = np.bincount(owners, minlength=self.sizes.size)
        return np.divide(entries, self.sizes, out=np.zeros_like(self.sizes), where=self.sizes > 0)

    def _grids(self, needed: IndexArray) -> list[Product]:
        """Indices that need a channel of each of several groups: the product of their shares."""
        owners = np.append(self._group_of, FROZEN)[needed]
        grids, cells = np.unique(np.sort(owners, axis=1), axis=0, return_counts=True)
        terms = []
        for grid, number in zip(grids, cells, strict=True):
            groups = grid[grid != FROZEN]
            shares = [self._shares(group.reshape(1)) for group in groups]
            shares[0] = shares[0] * number
            terms.append(tuple(Count(0.0, share) for share in shares))
        return terms

    def positions(self, tensor: gs.Tensor, axis: int, extent: int) -> Sum:
        """How many indices of an axis survive if it has so many; batch * heads depend on it."""
        if self._network.is_frozen(tensor, axis):
            return self.fixed(extent)
        share = self.fixed(extent / self._network.channels(tensor, axis).size)
        return expand([share, self.count(tensor, axis)])

    def fixed(self, extent: float) -> Sum:
        """A count that no group changes."""
        return [(Count(extent, np.zeros_like(self.sizes)),)]


def _shared_axes(
    network: Network,
) -> Iterator[tuple[tuple[int, int], tuple[gs.Tensor, int, int]]]:
    """Axes of grouped weights with one index for a channel of every part.

    Yields (identity of the weight, axis), then the activation, its axis and the number of parts.
    """
    for linear_map in network.consumers.values():
        if linear_map.groups == 1:
            continue
        if linear_map.transposed:
            axis, tensor, place = linear_map.out_axis, linear_map.y, linear_map.y_axis
        else:
            axis, tensor, place = linear_map.in_axis, linear_map.x, linear_map.x_axis
        yield (id(linear_map.weight), axis), (tensor, place, linear_map.groups)
