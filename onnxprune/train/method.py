"""What a method of training adds to the loop, which knows none of them.

In every step the loop calls, in this order: ``before_forward``, the forward and backward pass,
``after_backward``, the optimiser, ``after_step``. A method changes the network it was made for,
through taps, absent tensors, substitutes for weights, and gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx
from torch import Tensor

from onnxprune.train.network import Taps


@dataclass(frozen=True)
class Changes:
    """How one forward pass differs from the plain one.

    Attributes:
        taps: see ``TrainableNetwork.forward``.
        absent: see there.
    """

    taps: Taps = field(default_factory=dict)
    absent: Collection[str] = ()


@dataclass(frozen=True)
class Step:
    """One step of training, as a method sees it.

    Attributes:
        number: steps that have been taken before.
        total: steps that there will be, as far as is known; it may change when time is limited.
        feed: the batch, input name -> tensor.
        labels: the classes of its samples, shape (samples,); None where none are learnt.
        loss: the mean loss on the batch with other changes, differentiable; each call is one more
            forward pass, in which BatchNormalization leaves its running statistics as they are and
            Dropout drops what it does in the step's own pass.
        rate: the learning rate.
        average: a tensor's mean over all processes that train together, each on its part of the
            batch; what a method estimates from its batch has to go through it.
        gradient: the gradient of the mean loss by a tensor that is no weight, after the backward
            pass, over all processes; None without one, or where a step in half precision overflows.
        value: the mean loss of the step's own pass on this process's part, after the backward pass.
    """

    number: int
    total: int
    feed: Mapping[str, Tensor]
    labels: Tensor | None
    loss: Callable[[Changes], Tensor]
    rate: float
    average: Callable[[Tensor], Tensor] = lambda tensor: tensor
    gradient: Callable[[Tensor], Tensor | None] = lambda tensor: tensor.grad
    value: Tensor | None = None


class Method(Protocol):
    """A method of training. Tensors that it keeps belong on the network's device."""

    def before_forward(self, step: Step) -> Changes:
        """What the forward pass of this step does differently."""

    def penalty(self, step: Step) -> Tensor | float:
        """What is added to the loss before the backward pass; 0 for nothing."""

    def after_backward(self, step: Step) -> None:
        """Gradients are there, unscaled and averaged over all processes; they may be changed."""

    def after_step(self, step: Step) -> None:
        """The optimiser has changed the weights."""

    def evaluation(self) -> Changes:
        """How the network is evaluated."""

    def may_keep(self) -> bool:
        """Whether the network as it is now could be the result, if it is the best so far."""

    def columns(self) -> Mapping[str, float]:
        """What is logged beside loss and accuracy; the same names every time."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly; the network's own tensors are saved anyway."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model to save, from the one with the trained weights written back."""

    def notes(self) -> Sequence[str]:
        """What to tell the user of the result, a line each."""


class Backpropagation:
    """Training as it is: a method that adds nothing, and the base of those that add something."""

    def before_forward(self, step: Step) -> Changes:
        """Nothing is done differently."""
        return Changes()

    def penalty(self, step: Step) -> Tensor | float:
        """Nothing is added."""
        return 0.0

    def after_backward(self, step: Step) -> None:
        """Gradients stay as they are."""

    def after_step(self, step: Step) -> None:
        """Nothing follows."""

    def evaluation(self) -> Changes:
        """As the network is."""
        return Changes()

    def may_keep(self) -> bool:
        """It always could."""
        return True

    def columns(self) -> Mapping[str, float]:
        """No columns."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """There is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state."""

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model as it is."""
        return model

    def notes(self) -> Sequence[str]:
        """Nothing."""
        return ()
