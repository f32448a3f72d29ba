"""Decorrelated backpropagation: every linear layer learns to read uncorrelated inputs.

Dalm, Offergeld, Ahmad and van Gerven, arXiv 2405.02385. Gradients train W as ever, in a space in
which the layer's inputs are uncorrelated, so that they point closer to the natural gradient; after
each step of the optimiser a local rule moves R (``decorrelating_rule``), from a few rows of what
the layer has just read (``sampled_rows``). R and W are one kernel (``decorrelator``).

A layer's features are what one of its outputs reads: the inputs of a Gemm or MatMul, the patches
of a convolution (inputs / groups * taps of them, with an R for each group; of a depthwise one the
taps of a channel). A triangular R is over plain channels instead, one for all taps and for all
positions that a flattened map has of a channel. Of a 3 x 3 convolution it is 81 times smaller, and
what it converges to is the factor that pruning by channels asks for (``online_moments`` learns the
same beside any training).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from onnxprune.linear_map import FeatureSpec
from onnxprune.train.decorrelating_rule import DecorrelatingRule
from onnxprune.train.decorrelator import Decorrelator
from onnxprune.train.layer_reading import Reading
from onnxprune.train.layers import LinearLayer
from onnxprune.train.loss_log import LossLog
from onnxprune.train.method import Backpropagation, Changes, Step
from onnxprune.train.network import NO_TAPS, TrainableNetwork
from onnxprune.train.observation import Observer, in_front_of_dropout
from onnxprune.train.sampled_rows import RowSampler

MAX_FEATURES = 6000
"""Layers that read more keep R = I: it would have more than 36 million entries."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecorrelationSettings:
    """Settings of decorrelated backpropagation.

    Attributes:
        rate: eps of the local rule; None for 1e-4, or 0.005 of a triangular transform, whose steps
            are relative.
        kappa: how much unit second moments count; None for 0.01, or 0 of a triangular transform.
        normalised: whether loss and rule do not depend on the width of a layer.
        triangular: whether R is lower triangular, over plain channels.
        share: of the samples of a batch that R learns from.
        points: positions of each of them.
        layers: regular expression; only layers whose node it finds are decorrelated. None for all.
        guarded: whether the rule's steps are shortened to what is stable.

    Raises:
        ValueError: the settings make no sense.
    """

    rate: float | None = None
    kappa: float | None = None
    normalised: bool = False
    triangular: bool = False
    share: float = RowSampler.share
    points: int = RowSampler.points
    layers: str | None = None
    guarded: bool = True

    def __post_init__(self) -> None:
        self.make_rule()
        self.make_sampler()
        try:
            re.compile(self.layers or "")
        except re.error as error:
            raise ValueError(f"'{self.layers}' is not a regular expression: {error}") from error

    def make_rule(self) -> DecorrelatingRule:
        """The rule itself."""
        rate, kappa = (0.005, 0.0) if self.triangular else (1e-4, 0.01)
        return DecorrelatingRule(
            rate if self.rate is None else self.rate,
            kappa if self.kappa is None else self.kappa,
            self.normalised,
            self.triangular,
            relative=self.triangular,
            guarded=self.guarded,
        )

    def make_sampler(self) -> RowSampler:
        """What takes the rows."""
        return RowSampler(self.share, self.points)

    def selects(self, node: str) -> bool:
        """Whether a layer is decorrelated."""
        return self.layers is None or re.search(self.layers, node) is not None


class Decorrelation(Backpropagation):
    """Decorrelated backpropagation on a network, whose weights it substitutes.

    Layers with more than ``MAX_FEATURES`` features, and those that share a weight with another one
    in another way, keep R = I.

    Args:
        network: the network.
        settings: settings.
        plain: for a triangular R, features of plain channels, which tell apart the channels of a
            flattened map (see ``plain_channels``); what is not among them is taken as it is.

    Raises:
        ValueError: there is no layer to decorrelate.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        settings: DecorrelationSettings = DecorrelationSettings(),
        *,
        plain: Sequence[FeatureSpec] = (),
    ) -> None:
        self.settings = settings
        self._observer = Observer(settings.make_sampler())
        self.decorrelators: dict[str, Decorrelator] = {}
        self._losses = LossLog()
        sharers: dict[str, list[LinearLayer]] = {}
        for layer in network.linear_layers():
            if settings.selects(layer.node):
                sharers.setdefault(layer.weight, []).append(layer)
        for weight, layers in sharers.items():
            self._fuse(network, network.weights[weight], layers, plain)
        if not self.decorrelators:
            raise ValueError(
                "no layer is decorrelated: the model has no Conv, Gemm or MatMul with trained "
                f"weights whose name '{settings.layers or ''}' is found in"
            )

    def _fuse(
        self,
        network: TrainableNetwork,
        weight: Tensor,
        layers: Sequence[LinearLayer],
        plain: Sequence[FeatureSpec],
    ) -> None:
        name = layers[0].node
        channels = self.settings.triangular
        readings = [Reading.of(own, weight, channels=channels, plain=plain) for own in layers]
        first = readings[0]
        if not all(first.can_share(reading) for reading in readings):
            logger.info("%s shares its weight in another way and is not decorrelated", name)
            return
        if first.features > MAX_FEATURES:
            logger.info("%s reads %d features and is not decorrelated", name, first.features)
            return
        decorrelator = Decorrelator(layers[0].groups, first.features, self.settings.make_rule())
        decorrelator.to(weight.device)
        network.substitute(layers[0].weight, first.fused(decorrelator))
        self.decorrelators[name] = decorrelator
        for reading in readings:
            tensor = in_front_of_dropout(network.graph, reading.layer.input)
            self._observer.watch(tensor, name, reading.spec)

    def before_forward(self, step: Step) -> Changes:
        """Rows are taken of what the layers read."""
        return Changes(taps=self._observer.taps(NO_TAPS))

    def after_step(self, step: Step) -> None:
        """R moves."""
        for name, rows in self._observer.taken().items():
            self._losses.add(name, self.decorrelators[name].learn(rows, step.average).loss)

    def columns(self) -> Mapping[str, float]:
        """The decorrelation loss of every layer, mean over the steps since the last call.

        Not a number before there were any.
        """
        losses = self._losses.means(self.decorrelators)
        return {f"decorrelation of {name}": loss for name, loss in losses.items()}

    def state_dict(self) -> dict[str, Any]:
        """R is the network's own; what is left are the losses so far."""
        return {"losses": self._losses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._losses.load_state_dict(state["losses"])
