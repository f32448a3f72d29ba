"""What is known of a network's channels: groups, the maps that make and read them, the frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray
from onnxprune.linear_map import Contraction, LinearMap

FROZEN = -1
"""Stands for a channel that cannot be cut, where a channel index is expected."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that lie on the same axes and compete with each other.

    Attributes:
        name: name of the first node that makes them.
        channels: network-wide indices of its channels, shape (units,), in axis order.
        parts: balanced part of every unit, shape (units,); all parts keep equal counts.
        producers: names of the linear maps that make the channels.
        consumers: names of the linear maps that read them.
        contractions: names of the products of two activations that sum over them.
    """

    name: str
    channels: IndexArray
    parts: IndexArray
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    contractions: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of units."""
        return int(self.channels.size)

    @property
    def part_count(self) -> int:
        """Number of balanced parts."""
        return int(self.parts.max()) + 1


@dataclass(frozen=True)
class FrozenChannels:
    """Channels of one producer that cannot be cut, and why.

    Attributes:
        producer: name of the linear map that makes them.
        frozen: how many of its channels are frozen.
        size: how many it makes in all.
        reason: why (of most of them).
    """

    producer: str
    frozen: int
    size: int
    reason: str


@dataclass(frozen=True)
class Network:
    """A canonical model with its channels.

    Attributes:
        graph: the graphsurgeon graph of the canonical model.
        groups: the channel groups that can be cut.
        frozen: producers with channels that cannot be.
        producers: every linear map that makes channels, by name.
        consumers: every linear map that can be refitted, by name.
        contractions: every product of two activations that sums over channels, by name.
        channel_of: (tensor identity, axis) -> network-wide channel of every index, or FROZEN.
        products: channels that survive if several others do, as an entry of a heads * width axis
            needs its head and its place in it; row r has those that channel ``size`` + r needs,
            shape (products, needed at most), filled up with FROZEN.
    """

    graph: gs.Graph
    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenChannels, ...]
    producers: dict[str, LinearMap]
    consumers: dict[str, LinearMap]
    contractions: dict[str, Contraction]
    channel_of: dict[tuple[int, int], IndexArray] = field(repr=False)
    products: IndexArray = field(repr=False)

    @property
    def size(self) -> int:
        """Number of channels in all groups."""
        return sum(group.size for group in self.groups)

    def channels(self, tensor: gs.Tensor, axis: int) -> IndexArray:
        """The network-wide channel of every index of an axis, shape (extent,), or FROZEN."""
        known = self.channel_of.get((id(tensor), axis))
        if known is not None and known.size:
            return known
        extent = tensor.shape[axis] if tensor.shape is not None else 0
        return np.full(extent if isinstance(extent, int) else 0, FROZEN, np.int64)

    def is_frozen(self, tensor: gs.Tensor, axis: int) -> bool:
        """Whether no index of an axis is a channel that can be cut."""
        known = self.channel_of.get((id(tensor), axis))
        return known is None or bool((known == FROZEN).all())

    def survivors(self, keeps: Mapping[str, Sequence[int] | IndexArray]) -> Array:
        """Which channels survive, those of ``products`` included, shape (channels,), bool.

        Args:
            keeps: group name -> the units that survive; a group without stays whole.
        """
        alive = np.ones(self.size, np.bool_)
        for group in self.groups:
            if group.name in keeps:
                alive[group.channels] = False
                alive[group.channels[np.asarray(keeps[group.name])]] = True
        together = (self.products == FROZEN) | alive[self.products]
        survive: Array = np.append(alive, together.all(axis=1))
        return survive

    def seen_by(self, group: ChannelGroup, channels: IndexArray) -> IndexArray:
        """For every channel the one of this group that it is or needs, or FROZEN."""
        needed = np.full((self.size + len(self.products), 1 + self.products.shape[1]), FROZEN)
        needed[: self.size, 0] = np.arange(self.size)
        needed[self.size :, 1:] = self.products
        own = np.where(np.isin(needed, group.channels), needed, FROZEN).max(axis=1)
        seen: IndexArray = np.append(own, FROZEN)[channels]  # FROZEN, -1, is the last
        return seen
