"""Products of two activations as layer problems: what it costs to leave out an index summed over.

An attention score is s = sum_d q_d k_d. If the rows of the projection that makes one of the factors
can be mixed (``projection``), the places that are left take over what is cut (``scores``).

Elsewhere nothing can be refitted, and what is cut is lost: the score is a linear map with weights 1
of the features z_d = q_d k_d. Their Gram follows from those of q and k, E[z z^T] = E[q q^T] *
E[k k^T] element by element, if the rows q and k of a head are paired at random, which over all
pairs of positions they nearly are. A softmax over the positions of k does not see what all of them
have in common: there the mean of k is taken out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray
from onnxprune.concrete import shapes_in_small
from onnxprune.factors import Factor, factors_of
from onnxprune.gram import Gram
from onnxprune.layer_problem import LayerProblem
from onnxprune.linear_map import Contraction, FeatureSpec, HeadsInARow, LinearMap
from onnxprune.mac_terms import ATTENTION_OPS
from onnxprune.network import FROZEN, ChannelGroup, Network
from onnxprune.projection import Projection, Projections
from onnxprune.recovery import Solution
from onnxprune.scores import Moments, ScoreProblem, about_mean, about_zero, score_problems

MASKING_OPS = ("Add", "Cast", "Div", "Mul", "Reshape", "Softmax", "Sub", "Where")
"""What scores may go through on their way to the softmax."""
MASKING_STEPS = 8

Grams = Mapping[FeatureSpec, Gram]


@dataclass(frozen=True)
class Fold:
    """The factor whose projection takes over what is cut.

    Attributes:
        place: which factor it is: 0 for queries, 1 for keys.
        projection: what makes it.
        channels: network-wide channel of each of its places, shape (heads, places), or FROZEN.
    """

    place: int
    projection: Projection
    channels: IndexArray

    @property
    def linear_map(self) -> LinearMap:
        """The projection itself."""
        return self.projection.linear_map

    def keep(self, alive: Array) -> dict[int, IndexArray]:
        """The places that survive, for every head that does."""
        mask = (self.channels == FROZEN) | alive[self.channels]
        return {head: np.flatnonzero(row) for head, row in enumerate(mask) if row.any()}

    def written(
        self,
        problems: Sequence[LayerProblem],
        solutions: Mapping[int, Solution],
        keep: dict[int, IndexArray],
        sliced: tuple[Array, Array],
    ) -> tuple[Array, Array]:
        """The weight and bias of the projection that takes over what is cut.

        Args:
            problems: one for each head.
            solutions: head -> what was solved for it.
            keep: head -> its places that survive.
            sliced: weight and bias of the projection itself, with all outputs and only the kept
                inputs.
        """
        mixes = {
            head: problem.mix(solutions[head].weight, keep[head])
            for head, problem in enumerate(problems)
            if head in solutions and isinstance(problem, ScoreProblem)
        }
        return self.projection.mixed(*sliced, mixes, keep)


@dataclass(frozen=True)
class ContractionView:
    """One product of two activations as the numerics see it.

    Attributes:
        contraction: the product.
        channels: network-wide channel (or FROZEN) of every index of the axis summed over.
        places: that of every index summed over for one head; the same as ``channels``, unless the
            axis holds several heads one after another.
        factors: its two factors.
        fold: what takes over what is cut; None where nothing can.
    """

    contraction: Contraction
    channels: IndexArray
    places: IndexArray
    factors: tuple[Factor, Factor]
    fold: Fold | None

    @property
    def specs(self) -> tuple[FeatureSpec, FeatureSpec]:
        """The features of the two factors."""
        return self.factors[0].spec, self.factors[1].spec

    def problems(self, fit: Grams, tune: Grams) -> list[LayerProblem]:
        """The scores as linear maps: one for each head, or all of them as one without a fold."""
        rows = min(fit[spec].rows for spec in self.specs)
        name, fold = self.contraction.name, self.fold
        if fold is not None:
            moments, tuning = self._moments(fit, fold), self._moments(tune, fold)
            return list(score_problems(name, moments, tuning, self.places, rows))
        width = self.places.size
        return [
            LayerProblem(
                name=name,
                weight=np.append(np.ones(width), 0.0)[None],
                gram=self._product(fit),
                tune_gram=self._product(tune),
                channels=self.places,
                taps=1,
                rows=rows,
                refit=False,
            )
        ]

    def mask(self, alive: Array) -> Array:
        """Zeros for the channels that do not survive, shape (indices summed over,)."""
        survive = (self.channels == FROZEN) | alive[self.channels]
        mask: Array = survive.astype(self.contraction.node.inputs[0].dtype)
        return mask

    def is_cut(self, alive: Array) -> bool:
        """Whether a place it sums over does not survive."""
        return not bool(((self.places == FROZEN) | alive[self.places]).all())

    def _product(self, grams: Grams) -> Array:
        """The mean over heads, shape (places + 1, places + 1); the constant is 1 * 1."""
        left, right = (factor.moments(grams) for factor in self.factors)
        if _is_normalised(self.contraction):
            right = about_mean(right)
        mean: Array = (left * right).mean(axis=0)
        return mean

    def _moments(self, grams: Grams, fold: Fold) -> Moments:
        """The moments behind the scores of each head of the factor that takes over."""
        left, right = (factor.moments(grams) for factor in self.factors)
        heads = self.factors[fold.place].heads
        normalised = _is_normalised(self.contraction)
        if fold.place == 0:
            mixed, other = left, right if normalised else about_zero(right)
        else:
            mixed, other = about_mean(right) if normalised else right, about_zero(left)
        own = [np.flatnonzero(heads == head) for head in range(len(fold.channels))]
        return Moments(*(np.stack([m[of].mean(axis=0) for of in own]) for m in (mixed, other)))


def contraction_views(
    canonical: onnx.ModelProto,
    network: Network,
    groups: Sequence[ChannelGroup],
    *,
    recover: bool = True,
) -> dict[str, ContractionView]:
    """A view of every product of activations that sums over channels of these groups.

    Args:
        canonical: the model.
        network: what is known of its channels.
        groups: the groups.
        recover: whether projections may take over what is cut.
    """
    wanted = {name for group in groups for name in group.contractions}
    if not wanted:
        return {}
    projections = Projections(network, shapes_in_small(canonical))
    views = {}
    for name in sorted(wanted):
        factors = factors_of(projections, network.contractions[name])
        fold = next(_folds(network, factors), None) if recover else None
        views[name] = _view(network, network.contractions[name], factors, fold)
    return views


def _view(
    network: Network,
    contraction: Contraction,
    factors: tuple[Factor, Factor],
    fold: Fold | None,
) -> ContractionView:
    channels = network.channels(contraction.node.inputs[0], contraction.a_axis)
    places = channels
    if isinstance(contraction, HeadsInARow):
        places = _same_in_all_heads(network, channels.reshape(contraction.heads, -1))
    return ContractionView(contraction, channels, places, factors, fold)


def _folds(network: Network, factors: Sequence[Factor]) -> Iterator[Fold]:
    """The factors that can take over, the queries first."""
    for place, factor in enumerate(factors):
        projection = factor.projection
        if projection is not None:
            linear_map = projection.linear_map
            made = network.channels(linear_map.y, linear_map.y_axis)
            yield Fold(place, projection, made[projection.rows])


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
