"""What is minimised: for classes, the cross entropy of the scores that the network gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.arrays import IndexArray
from onnxprune.comparison import looks_like_scores
from onnxprune.errors import TrainingError
from onnxprune.train.network import TrainableNetwork

PASSING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""What may stand between a Softmax and an output that it makes."""


class Objective(Protocol):
    """What is minimised, and what is counted."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the tensors that it needs."""

    def loss(
        self, values: Mapping[str, Tensor], feed: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """The sum of the losses of all samples of a batch."""

    def right(self, values: Mapping[str, Tensor], labels: Tensor | None) -> Tensor | None:
        """How many samples are classified right; None where there are no classes."""


class Classification:
    """The cross entropy of classes.

    Scores are taken before the Softmax, or the Sigmoid, that the model may end with; of a Sigmoid
    every class has a probability of its own.

    Args:
        network: the network.
        feed: a batch, by which the output with the scores is found.
        smoothing: share of the probability that labels give to all classes alike.

    Attributes:
        classes: how many there are.

    Raises:
        TrainingError: no output holds a row of scores per sample.
    """

    def __init__(
        self, network: TrainableNetwork, feed: Mapping[str, Tensor], smoothing: float = 0.0
    ) -> None:
        self._smoothing = smoothing
        was_training = network.training
        with torch.no_grad():
            found = network.eval()(feed)
        network.train(was_training)
        arrays = {name: value.cpu().numpy() for name, value in feed.items()}
        outputs = {name: value.cpu().numpy() for name, value in found.items()}
        scores = [name for name, value in outputs.items() if looks_like_scores(value, arrays)]
        if not scores:
            shapes = ", ".join(f"'{name}' {list(v.shape)}" for name, v in outputs.items())
            raise TrainingError(
                f"no output of the model is a row of class scores per sample ({shapes}); only "
                "classifiers can be trained with labels"
            )
        self.output = scores[0]
        self.classes = int(outputs[self.output].shape[1])
        self._logits, self._apart = _before_softmax(network, self.output)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The scores."""
        return (self._logits,)

    def loss(
        self, values: Mapping[str, Tensor], feed: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """The sum of the cross entropies."""
        scores, truth = self._scores(values), labels
        assert truth is not None
        if not self._apart:
            return functional.cross_entropy(
                scores, truth, reduction="sum", label_smoothing=self._smoothing
            )
        wanted = functional.one_hot(truth, self.classes).to(scores.dtype)
        wanted = wanted * (1 - self._smoothing) + self._smoothing / self.classes
        return functional.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")

    def right(self, values: Mapping[str, Tensor], labels: Tensor | None) -> Tensor | None:
        """How many samples have their highest score at their class."""
        assert labels is not None
        return (self._scores(values).argmax(1) == labels).sum()

    def _scores(self, values: Mapping[str, Tensor]) -> Tensor:
        return values[self._logits].flatten(1).float()

    def check(self, labels: IndexArray, where: str) -> None:
        """Raise TrainingError for a class that the network does not know."""
        bad = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if bad.size:
            raise TrainingError(
                f"{where}: sample {bad[0]} is of class {labels[bad[0]]}, but output "
                f"'{self.output}' scores {self.classes} classes, 0 to {self.classes - 1} "
                f"({bad.size} such samples); correct the labels, or take a model with more outputs"
            )


def _before_softmax(network: TrainableNetwork, output: str) -> tuple[str, bool]:
    """The scores behind an output, and whether each class has a probability of its own."""
    makers = {name: node for node in network.graph.nodes for name in node.outputs}
    name = output
    while (node := makers.get(name)) is not None and node.op in PASSING:
        name = node.inputs[0]
    if node is not None and node.op in ("Softmax", "Sigmoid"):
        return node.inputs[0], node.op == "Sigmoid"
    return output, False
