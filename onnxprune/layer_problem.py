"""What the numerics see of a network: its consumers, and the channel groups they read."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.arrays import IndexArray, Matrix


@dataclass(frozen=True)
class Targets:
    """Moments of targets y that a consumer is given instead of its own output W x + b.

    Attributes:
        cross: E[y x^T], shape (outputs, features + 1), the constant last.
        second: E|y|^2, summed over outputs.
    """

    cross: Matrix
    second: float


@dataclass(frozen=True)
class LayerProblem:
    """What the numerics see of one consumer: a linear map y = W x + b and the moments of x.

    A feature is one column of the weight matrix. Features are ordered entry by entry, ``taps`` of
    them for each entry of the consumer's input axis: feature = entry * taps + tap. One channel may
    own several entries (a flattened map) and, through its entries, a *block* of features.

    Attributes:
        name: the consumer's name; grouped convolutions have one problem per part.
        weight: array of shape (outputs, features + 1); the last column is the bias b, the weight
            of the constant feature 1.
        gram: E[x x^T] with the constant last, uncentred, over the images the solution is fitted
            on; shape (features + 1, features + 1).
        tune_gram: the same over images not used for ``gram``; features and ridge are chosen here.
        channels: array of shape (entries,); the network-wide channel index of every entry, -1
            for an entry that cannot be cut.
        taps: features per entry (the kernel's size for a convolution on patches, else 1).
        rows: how many rows of x stand behind ``gram``.
        tune_rows: how many behind ``tune_gram``; 0 where they must not be fitted on.
        zero_padded: whether some features read padding, so that a flat bias is wrong at borders.
        targets: over the rows of ``gram``, where they are not W x + b.
        tune_targets: over those of ``tune_gram``; given if ``targets`` are.
        refit: whether the weights can take over what is cut; if not, all of it is lost.
        alternative: weights that are tried as a prior beside ``weight``, of its shape: the slice,
            where that is a one-shot solution; None where it is the slice itself.
        variance: what prices are relative to; None for the variance of this map's own output.
    """

    name: str
    weight: Matrix
    gram: Matrix
    tune_gram: Matrix
    channels: IndexArray
    taps: int
    rows: int
    zero_padded: bool = False
    targets: Targets | None = None
    tune_targets: Targets | None = None
    tune_rows: int = 0
    refit: bool = True
    alternative: Matrix | None = None
    variance: float | None = None

    @property
    def cross(self) -> Matrix | None:
        """E[y x^T] of given targets, shape (outputs, features + 1)."""
        return None if self.targets is None else self.targets.cross


@dataclass(frozen=True)
class GroupProblem:
    """One channel group as a criterion sees it.

    Attributes:
        name: the group's name.
        channels: network-wide channel indices of the group's units, shape (units,); unit u of the
            group is channels[u]. Entries of a consumer that belong to other groups stay kept.
        parts: shape (units,); the balanced part of each unit: all parts keep equal counts.
            All zero for an ordinary group.
        consumers: the layers that read the group's channels.
        producer_weights: for each linear map that writes the group's channels, an array of shape
            (units, fan-in) with the weights that produce each unit (rows of zeros where a map
            does not write a unit).
    """

    name: str
    channels: IndexArray
    parts: IndexArray
    consumers: tuple[LayerProblem, ...]
    producer_weights: tuple[Matrix, ...] = ()
