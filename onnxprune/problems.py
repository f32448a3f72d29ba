"""Where the two halves meet: consumers and their Grams in, layer and group problems out.

A *view* translates between one consumer's weight tensor and the problems the numerics solve. Most
consumers are taken as they are: features are patches, or the entries of the axis. A consumer too
wide for that is *stacked*: each of its T taps (or flattened positions) becomes an output of its
own over plain channels, W of shape (outputs, C * T) turning into (outputs * T, C). Least squares
on the channel Gram then is the channel mix per tap. A transposed convolution is always stacked:
its taps write the channels of one position to different ones. With strides, different taps reach
neighbouring outputs, so that one bias cannot take over means: least squares goes through zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.errors import UnsupportedModelError
from onnxprune.gram import Gram
from onnxprune.layer_problem import GroupProblem, LayerProblem
from onnxprune.linear_map import FeatureSpec, LinearMap
from onnxprune.network import FROZEN, ChannelGroup, Network
from onnxprune.scores import about_zero

MAX_FEATURES = 6000
"""Widest Gram that is collected whole: 6 000 features are 0.3 GB."""


@dataclass(frozen=True)
class ConsumerView:
    """One consumer as the numerics see it.

    Attributes:
        linear_map: the consumer.
        specs: the features its Gram is over, for every node that multiplies by its weights.
        channels: network-wide channel (or FROZEN) of every entry the problems have, all parts.
        stack: taps or positions that became outputs; 1 where nothing was stacked.
        stack_major: whether the stacked index runs fastest along the weight matrix's columns.
    """

    linear_map: LinearMap
    specs: tuple[FeatureSpec, ...]
    channels: IndexArray
    stack: int = 1
    stack_major: bool = True

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self.linear_map.name

    def problems(
        self, fit: Mapping[FeatureSpec, Gram], tune: Mapping[FeatureSpec, Gram]
    ) -> list[LayerProblem]:
        """One problem for every part of the consumer; nodes with the same weights are one."""
        weights = self.matrices(self.linear_map.weight.values, self.linear_map.bias_vector())
        parts = len(weights)
        channels = self.linear_map.read(self.channels)
        seen, tuning = self._sum(fit), self._sum(tune)
        grams, tune_grams = seen.mean(), tuning.mean()
        if self.linear_map.upsampling > 1:
            grams, tune_grams = about_zero(grams), about_zero(tune_grams)
        return [
            LayerProblem(
                name=self.name if parts == 1 else f"{self.name}[{part}]",
                weight=weights[part],
                gram=grams[part],
                tune_gram=tune_grams[part],
                channels=channels[part],
                taps=(weights[part].shape[1] - 1) // channels[part].size,
                rows=seen.rows,
                tune_rows=tuning.rows,
                zero_padded=self.zero_padded,
            )
            for part in range(parts)
        ]

    def matrices(self, weight: Array, bias: Vector) -> list[Matrix]:
        """A weight tensor, inputs sliced or not, and a bias as the parts' problems have them.

        Returns:
            Arrays of shape (outputs, features + 1), the bias last.
        """
        found = [self._stacked(matrix) for matrix in self.linear_map.matrices(weight)]
        biases = np.split(bias, len(found))
        columns = zip(found, map(self._stacked_bias, biases), strict=True)
        return [np.column_stack(pair) for pair in columns]

    @property
    def zero_padded(self) -> bool:
        """Whether some features read padding."""
        windows = [sharer.window for sharer in self.linear_map.sharers]
        return self.linear_map.transposed or any(w is not None and w.padded for w in windows)

    def _sum(self, grams: Mapping[FeatureSpec, Gram]) -> Gram:
        first = grams[self.specs[0]]
        total = Gram(len(first.sums), first.sums.shape[1] - 1)
        for spec in self.specs:
            total.merge(grams[spec])
        return total

    def keep(self, alive: Array) -> list[IndexArray]:
        """The surviving entries of every part's problem, given which channels are alive."""
        return [np.flatnonzero(part) for part in self.linear_map.read(self._mask(alive))]

    def is_cut(self, alive: Array) -> bool:
        """Whether the consumer reads a channel that does not survive."""
        return not bool(self._mask(alive).all())

    def _mask(self, alive: Array) -> Array:
        mask: Array = (self.channels == FROZEN) | alive[self.channels]
        return mask

    def kept_inputs(self, alive: Array) -> list[IndexArray]:
        """The surviving entries of the weight's input axis, per part; stacked or not."""
        keep = self.keep(alive)
        if self.stack == 1 or self.linear_map.taps > 1:
            return keep
        positions = np.arange(self.stack)
        if self.stack_major:
            return [(part[:, None] * self.stack + positions).reshape(-1) for part in keep]
        width = self.channels.size
        return [(positions[:, None] * width + part).reshape(-1) for part in keep]

    def weight_tensor(self, matrices: Sequence[Matrix]) -> Array:
        """The weight tensor, inputs sliced, of the parts' solutions."""
        return self.linear_map.from_matrices([self._unstacked(matrix) for matrix in matrices])

    def bias_tensor(self, biases: Sequence[Vector]) -> Array:
        """The bias, shape (outputs,), of the parts' solutions."""
        joined = np.concatenate([bias.reshape(-1, self.stack).sum(axis=1) for bias in biases])
        return joined.astype(self.linear_map.weight.values.dtype)

    def _stacked(self, matrix: Matrix) -> Matrix:
        if self.stack == 1:
            return matrix
        outputs = matrix.shape[0]
        if self.stack_major:
            matrix = matrix.reshape(outputs, -1, self.stack).swapaxes(1, 2)
        return matrix.reshape(outputs * self.stack, -1)

    def _unstacked(self, matrix: Matrix) -> Matrix:
        if self.stack == 1:
            return matrix
        cube = matrix.reshape(-1, self.stack, matrix.shape[1])
        if self.stack_major:
            cube = cube.swapaxes(1, 2)
        return cube.reshape(cube.shape[0], -1)

    def _stacked_bias(self, bias: Vector) -> Vector:
        """The whole bias belongs to the first of an output's stacked rows."""
        spread = np.zeros((bias.size, self.stack))
        spread[:, 0] = bias
        return spread.reshape(-1)


def readers_of(groups: Sequence[ChannelGroup]) -> set[str]:
    """The consumers that read channels of these groups."""
    return {name for group in groups for name in group.consumers}


def consumer_views(
    network: Network, wanted: Collection[str], max_features: int = MAX_FEATURES
) -> dict[str, ConsumerView]:
    """Views of these consumers, in the network's order.

    Args:
        network: the network.
        wanted: names of consumers.
        max_features: those that read more features are stacked; 0 to stack all that can be.
    """
    views = {}
    for name, linear_map in network.consumers.items():
        channels = network.channels(linear_map.x, linear_map.x_axis)
        if name in wanted:
            specs = [m.feature_spec(m.x.name, _rank(m)) for m in linear_map.sharers]
            view = ConsumerView(linear_map, tuple(specs), channels)
            features = channels.size // linear_map.groups * linear_map.taps
            known = linear_map.taps == 1 or all(spec.window is not None for spec in specs)
            views[name] = view if features <= max_features and known else _stacked_view(view)
    return views


def _rank(linear_map: LinearMap) -> int:
    """How many axes a map's input has.

    Raises:
        UnsupportedModelError: that is not known, as behind a Squeeze that depends on the batch.
    """
    shape = linear_map.x.shape
    if shape is None:
        raise UnsupportedModelError(
            f"activation {linear_map.x.name}, which '{linear_map.name}' reads, has an unknown "
            "number of axes; give the operators before it axes that do not depend on the batch"
        )
    return len(shape)


def _stacked_view(view: ConsumerView) -> ConsumerView:
    """The view over plain channels: a convolution's taps, or flattened positions, stacked."""
    if view.linear_map.taps > 1:
        plain = tuple(replace(spec, window=None) for spec in view.specs)
        return replace(view, specs=plain, stack=view.linear_map.taps)
    fold, major = flattened(view.channels)
    if fold == 1:
        return view
    shape = (-1, fold) if major else (fold, -1)
    channels = view.channels.reshape(shape)
    return replace(
        view,
        specs=tuple(replace(spec, fold=fold, fold_major=major) for spec in view.specs),
        channels=channels[:, 0] if major else channels[0],
        stack=fold,
        stack_major=major,
    )


def flattened(channels: IndexArray) -> tuple[int, bool]:
    """(positions per channel, whether they run fastest) of an axis that holds flattened maps."""
    changes = np.flatnonzero(np.diff(channels)) + 1
    fold = int(np.gcd.reduce(np.append(changes, channels.size)))
    if fold > 1:
        return fold, True
    anchor = channels[np.argmax(channels != FROZEN)]  # frozen entries all look the same
    repeats = np.flatnonzero(channels == anchor)
    period = int(repeats[1] - repeats[0]) if repeats.size > 1 else channels.size
    rounds = period < channels.size and channels.size % period == 0
    if rounds and (channels.reshape(-1, period) == channels[:period]).all():
        return channels.size // period, False
    return 1, True


def layer_problems(
    views: Mapping[str, ConsumerView],
    fit: Mapping[FeatureSpec, Gram],
    tune: Mapping[FeatureSpec, Gram],
) -> dict[str, list[LayerProblem]]:
    """Consumer name -> its problems, one per part."""
    return {name: view.problems(fit, tune) for name, view in views.items()}


def group_problem(
    group: ChannelGroup,
    network: Network,
    layers: Mapping[str, Sequence[LayerProblem]],
) -> GroupProblem:
    """A group with everything that reads and makes its channels."""
    consumers = [
        replace(layer, channels=own)
        for name in (*group.consumers, *group.contractions)
        for layer in layers[name]
        for own in [network.seen_by(group, layer.channels)]
        if (own != FROZEN).any()
    ]
    makers = [_made(group, network, network.producers[name]) for name in group.producers]
    return GroupProblem(group.name, group.channels, group.parts, tuple(consumers), tuple(makers))


def _made(group: ChannelGroup, network: Network, producer: LinearMap) -> Matrix:
    """The weights that make each unit, shape (units, fan-in); zeros for units not made here.

    A unit that several rows make (by DepthToSpace, one for each position) has them side by side.
    """
    rows = producer.rows()
    channels = network.seen_by(group, network.channels(producer.y, producer.y_axis))
    order = np.argsort(group.channels)
    place = np.searchsorted(group.channels[order], channels)
    place = order[np.minimum(place, group.size - 1)]
    own = group.channels[place] == channels
    units, made = place[own], rows[own]
    in_turn = np.argsort(units, kind="stable")
    units = units[in_turn]
    turn = np.arange(units.size) - np.searchsorted(units, units)
    result = np.zeros((group.size, turn.max(initial=0) + 1, rows.shape[1]))
    result[units, turn] = made[in_turn]
    return result.reshape(group.size, -1)
