"""Products of two activations as layer problems: what it costs to leave out an index summed over.

An attention score is s = sum_d q_d k_d, a linear map with weights 1 of the features z_d = q_d k_d.
Their Gram follows from those of q and k, E[z z^T] = E[q q^T] * E[k k^T] element by element, if
the rows q and k of a head are paired at random, which over all pairs of positions they nearly are.
A softmax over the positions of k does not see what all of them have in common: there the mean of k
is taken out. No weight stands here that could be refitted: what is cut is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray
from onnxprune.gram import Gram
from onnxprune.linear_map import Contraction, FeatureSpec
from onnxprune.mac_terms import ATTENTION_OPS
from onnxprune.network import FROZEN, ChannelGroup, Network
from onnxprune.plan import LayerProblem
from onnxprune.rules.attention import HeadsInARow

MASKING_OPS = ("Add", "Cast", "Div", "Mul", "Reshape", "Softmax", "Sub", "Where")
"""What scores may go through on their way to the softmax."""
MASKING_STEPS = 8
BATCH, HEADS, POSITIONS, WIDTH = range(4)
"""The axes of an activation of attention that has its heads apart."""


@dataclass(frozen=True)
class ContractionView:
    """One product of two activations as the numerics see it.

    Attributes:
        contraction: the product.
        channels: network-wide channel (or FROZEN) of every index of the axis summed over.
        places: that of every index summed over for one head; the same as ``channels``, unless the
            axis holds several heads one after another.
        specs: the features of its two factors.
    """

    contraction: Contraction
    channels: IndexArray
    places: IndexArray
    specs: tuple[FeatureSpec, FeatureSpec]

    def problem(
        self, fit: Mapping[FeatureSpec, Gram], tune: Mapping[FeatureSpec, Gram]
    ) -> LayerProblem:
        """The scores as a linear map of the products of their factors."""
        width = self.places.size
        return LayerProblem(
            name=self.contraction.name,
            weight=np.append(np.ones(width), 0.0)[None],
            gram=self._gram(fit),
            tune_gram=self._gram(tune),
            channels=self.places,
            taps=1,
            rows=min(fit[spec].rows for spec in self.specs),
            refit=False,
        )

    def mask(self, alive: Array) -> Array:
        """Zeros for the channels that do not survive, shape (indices summed over,)."""
        survive = (self.channels == FROZEN) | alive[self.channels]
        mask: Array = survive.astype(self.contraction.node.inputs[0].dtype)
        return mask

    def _gram(self, grams: Mapping[FeatureSpec, Gram]) -> Array:
        """The mean over heads, shape (features + 1, features + 1); the constant is 1 * 1."""
        left, right = (grams[spec].mean() for spec in self.specs)
        if _is_normalised(self.contraction):
            right = right - right[:, :, -1:] * right[:, -1:, :]
            right[:, -1, -1] = 1.0
        right = right.repeat(len(left) // len(right), axis=0)  # of heads that several share
        mean: Array = (left * right).mean(axis=0)
        return mean


def contraction_views(
    network: Network, groups: Sequence[ChannelGroup]
) -> dict[str, ContractionView]:
    """A view of every product of activations that sums over channels of these groups."""
    wanted = {name for group in groups for name in group.contractions}
    return {name: _view(network, network.contractions[name]) for name in sorted(wanted)}


def _view(network: Network, contraction: Contraction) -> ContractionView:
    a, b = contraction.node.inputs[:2]
    channels = network.channels(a, contraction.a_axis)
    if isinstance(contraction, HeadsInARow):
        specs = (
            FeatureSpec(a.name, len(a.shape), contraction.a_axis, parts=contraction.heads),
            FeatureSpec(b.name, len(b.shape), contraction.b_axis, parts=contraction.others),
        )
        places = _same_in_all_heads(network, channels.reshape(contraction.heads, -1))
        return ContractionView(contraction, channels, places, specs)
    specs = _spec(a, contraction.a_axis, b), _spec(b, contraction.b_axis, a)
    return ContractionView(contraction, channels, channels, specs)


def _is_normalised(contraction: Contraction) -> bool:
    """Whether the products are the arguments of a softmax over their last axis."""
    node = contraction.node
    for _ in range(MASKING_STEPS):
        if node.op in ("Softmax", *ATTENTION_OPS):
            return node.op != "Softmax" or node.attrs.get("axis", -1) in (-1, _last_axis(node))
        readers = node.outputs[0].outputs
        if len(readers) != 1 or readers[0].op not in MASKING_OPS:
            return False
        node = readers[0]
    return False


def _last_axis(node: gs.Node) -> int | None:
    shape = node.outputs[0].shape
    return None if shape is None else len(shape) - 1


def _same_in_all_heads(network: Network, grid: IndexArray) -> IndexArray:
    """What the entries of a place need in all heads, and not in all places, shape (width,)."""

    def needs(channel: int) -> set[int]:
        row = channel - network.size
        return {channel} if row < 0 else set(network.products[row].tolist())

    columns = [set.intersection(*map(needs, column)) for column in grid.T.tolist()]
    head = set.intersection(*columns) if len(columns) > 1 else set()
    return np.array([max(column - head - {FROZEN}, default=FROZEN) for column in columns])


def _spec(tensor: gs.Tensor, axis: int, other: gs.Tensor) -> FeatureSpec:
    """The channel values of a factor, by head if both factors have the same heads."""
    rank = len(tensor.shape)
    plain = FeatureSpec(tensor.name, rank, axis)
    if rank != len(other.shape) or rank <= WIDTH:
        return plain
    heads = tensor.shape[HEADS]
    if not isinstance(heads, int) or heads != other.shape[HEADS]:
        return plain
    return FeatureSpec(tensor.name, rank, axis, parts=heads, apart=HEADS)
