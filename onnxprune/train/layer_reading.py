"""What a linear layer reads, as rows, and what its R is fused into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from onnxprune.linear_map import FeatureSpec
from onnxprune.train.decorrelator import Decorrelator, FusedWeight
from onnxprune.train.layers import LinearLayer


@dataclass(frozen=True)
class Reading:
    """The rows that a layer multiplies.

    Attributes:
        layer: the layer.
        features: of a row: patches, plain channels, or the inputs of a product.
        taps: of its kernel; 1 of a product.
        channels: whether rows of a convolution are plain channels.
        folded: what is known of a flattened map that a product reads, if rows are its channels.
    """

    layer: LinearLayer
    features: int
    taps: int
    channels: bool = False
    folded: FeatureSpec | None = None

    @classmethod
    def of(
        cls, layer: LinearLayer, weight: Tensor, *, channels: bool, plain: Sequence[FeatureSpec]
    ) -> Reading:
        """The rows of a layer.

        Args:
            layer: the layer.
            weight: its weight.
            channels: whether they are of plain channels.
            plain: features of plain channels that are known (see ``plain_channels``).
        """
        if layer.convolutional:
            inputs, taps = weight.shape[1], math.prod(weight.shape[2:])
            return cls(layer, inputs if channels else inputs * taps, taps, channels)
        inputs = weight.shape[0 if layer.inputs_first else 1]
        own = (spec for spec in plain if channels and spec.tensor == layer.input and spec.fold > 1)
        folded = next(own, None)
        return cls(layer, inputs // folded.fold if folded else inputs, 1, channels, folded)

    def spec(self, value: Tensor) -> FeatureSpec:
        """What a row is of the tensor that the layer reads."""
        layer, rank = self.layer, value.dim()
        if self.folded is not None:
            return self.folded
        if not layer.convolutional:
            return FeatureSpec(layer.input, rank, rank - 1)
        plain = self.channels and self.taps > 1
        window = None if plain else layer.window(value.shape[2:])
        return FeatureSpec(layer.input, rank, 1, window, layer.groups)

    def fused(self, decorrelator: Decorrelator) -> FusedWeight:
        """The weight with R in it."""
        stack_major = self.folded is None or self.folded.fold_major
        return FusedWeight(
            decorrelator, inputs_first=self.layer.inputs_first, stack_major=stack_major
        )

    def can_share(self, other: Reading) -> bool:
        """Whether two layers with one weight can have one R."""
        return self._form == other._form

    @property
    def _form(self) -> tuple[object, ...]:
        layer, folded = self.layer, self.folded
        stack = (1, True) if folded is None else (folded.fold, folded.fold_major)
        return (layer.inputs_first, layer.groups, self.features, self.taps, self.channels, *stack)
