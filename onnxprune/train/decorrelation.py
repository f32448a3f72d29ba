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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor

from onnxprune.errors import TrainingError
from onnxprune.linear_map import FeatureSpec
from onnxprune.plain_channels import plain_specs
from onnxprune.train.decorrelating_rule import DecorrelatingRule
from onnxprune.train.decorrelation_options import DecorrelationOptions
from onnxprune.train.decorrelator import Decorrelator, FusedWeight
from onnxprune.train.layer_reading import Reading
from onnxprune.train.layers import LinearLayer
from onnxprune.train.loss_log import LossLog
from onnxprune.train.method import Backpropagation, Changes, Step
from onnxprune.train.network import NO_TAPS, Taps, TrainableNetwork
from onnxprune.train.observation import Observer, in_front_of_dropout
from onnxprune.train.sampled_rows import RowSampler

MAX_FEATURES = 6000
"""Layers that read more keep R = I: it would have more than 36 million entries."""

DEFAULTS = DecorrelationOptions()

logger = logging.getLogger(__name__)


def rule_of(options: DecorrelationOptions) -> DecorrelatingRule:
    """The local rule of these options."""
    return DecorrelatingRule(
        options.eps,
        options.whitening,
        normalised=options.loss == "normalised",
        triangular=options.triangular,
        relative=options.triangular,
    )


class Decorrelation(Backpropagation):
    """Decorrelated backpropagation on a network, whose weights it substitutes.

    Layers with more than ``MAX_FEATURES`` features, those that share a weight with another one in
    another way, and those whose weight is not trained, keep R = I.

    Args:
        network: the network.
        model: what it was made of.
        options: settings.

    Raises:
        TrainingError: there is no layer to decorrelate.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        model: onnx.ModelProto,
        options: DecorrelationOptions = DEFAULTS,
    ) -> None:
        self._rule = rule_of(options)
        self._triangular = options.triangular
        self._observer = Observer(RowSampler(options.share, options.points))
        self.decorrelators: dict[str, Decorrelator] = {}
        self._fused: dict[str, FusedWeight] = {}
        self._losses = LossLog()
        plain = plain_specs(model) if options.triangular else []
        sharers: dict[str, list[LinearLayer]] = {}
        for layer in network.linear_layers():
            if options.selects(layer.node) and network.weights[layer.weight].requires_grad:
                sharers.setdefault(layer.weight, []).append(layer)
        for layers in sharers.values():
            self._fuse(network, layers, plain)
        if not self.decorrelators:
            asked = f" whose name '{options.layers}' is found in" if options.layers else ""
            raise TrainingError(
                f"no layer is decorrelated: the model has no Conv, Gemm or MatMul{asked} that can "
                "be; train with --method backprop, or name others with --decorrelate"
            )

    def _fuse(
        self, network: TrainableNetwork, layers: Sequence[LinearLayer], plain: Sequence[FeatureSpec]
    ) -> None:
        """Give one weight its R."""
        name, weight = layers[0].node, network.weights[layers[0].weight]
        readings = [
            Reading.of(layer, weight, channels=self._triangular, plain=plain) for layer in layers
        ]
        first = readings[0]
        if not all(first.can_share(reading) for reading in readings):
            logger.info("%s shares its weight in another way and is not decorrelated", name)
            return
        if first.features > MAX_FEATURES:
            logger.info("%s reads %d features and is not decorrelated", name, first.features)
            return
        decorrelator = Decorrelator(layers[0].groups, first.features, self._rule).to(weight.device)
        self._fused[layers[0].weight] = first.fused(decorrelator)
        network.substitute(layers[0].weight, self._fused[layers[0].weight])
        self.decorrelators[name] = decorrelator
        for reading in readings:
            tensor = in_front_of_dropout(network.graph, reading.layer.input)
            self._observer.watch(tensor, name, reading.spec)

    def taps(self) -> Taps:
        """Taps that take rows of what the layers read."""
        return self._observer.taps(NO_TAPS)

    def learn(self, average: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        """R moves, by the rows that were taken.

        Args:
            average: a tensor's mean over all processes that train together.
        """
        for name, rows in self._observer.taken().items():
            self._losses.add(name, self.decorrelators[name].learn(rows, average).loss)

    @torch.no_grad()
    def absorb(self, network: TrainableNetwork) -> None:
        """Take weights that R = I belongs to, to those with which R as it is computes the same."""
        for name, fused in self._fused.items():
            network.weights[name].copy_(fused.unfused(network.weights[name]))

    def before_forward(self, step: Step) -> Changes:
        """Rows are taken."""
        return Changes(taps=self.taps())

    def after_step(self, step: Step) -> None:
        """R moves."""
        self.learn(step.average)

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
