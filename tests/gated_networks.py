"""Networks with sections that are planted to be vital or useless, and a loop that trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from micro_models import ints, whole

torch = pytest.importorskip("torch")  # tests that take theirs from here skip without it

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from onnxprune.train.method import Changes, Method, Step  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402

VITAL, USELESS = "with_vital", "with_useless"
"""The sums of the sections that read what the labels depend on, and noise."""


def planted(seed: int = 0) -> onnx.ModelProto:
    """Two sections on a stream of eight features.

    Labels are whether the first two features have the same sign, which no linear map knows: without
    the second section the head can only guess. The first one reads four features that are noise.
    """
    return whole(
        "e = Slice (x, four, eight, one) f = Gemm (e, w1, b1) g = Relu (f) h = Gemm (g, w2, b2)"
        " with_useless = Add (x, h) a = Slice (with_useless, zero, two, one) b = Gemm (a, w3, b3)"
        " c = Relu (b) d = Gemm (c, w4, b4) with_vital = Add (with_useless, d)"
        " y = Gemm (with_vital, w5, b5)",
        {
            "w1": drawn(seed, 4, 16), "b1": drawn(seed + 1, 16), "w2": drawn(seed + 2, 16, 8),
            "b2": drawn(seed + 3, 8), "w3": drawn(seed + 4, 2, 16), "b3": drawn(seed + 5, 16),
            "w4": drawn(seed + 6, 16, 8), "b4": drawn(seed + 7, 8), "w5": drawn(seed + 8, 8, 2),
            "b5": drawn(seed + 9, 2), "zero": ints(0), "one": ints(1), "two": ints(2),
            "four": ints(4), "eight": ints(8),
        },
        inputs="float[N,8] x",
        outputs="float[N,2] y",
    )()  # fmt: skip


def drawn(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng([7, seed])
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def batch(seed: int, count: int = 64) -> tuple[Tensor, Tensor]:
    """Samples for the planted networks, and their labels."""
    features = torch.tensor(np.random.default_rng([8, seed]).standard_normal((count, 8)))
    return features.float(), (features[:, 0] * features[:, 1] > 0).long()


@dataclass
class Run:
    """Plain stochastic gradient descent with a method.

    Attributes:
        network: what is trained.
        method: how.
        steps: how many there are in all.
        samples: draws the batch of a step.
    """

    network: TrainableNetwork
    method: Method
    steps: int
    samples: Callable[[int], tuple[Tensor | dict[str, Tensor], Tensor]] = batch
    rate: float = 0.05
    decay: float = 1e-3

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=self.rate, momentum=0.9, weight_decay=self.decay
        )
        self.done = 0

    def to(self, end: int) -> Run:
        """Train up to a step."""
        self.network.train()
        for step in range(self.done, end):
            self._step(step)
        self.done = end
        return self

    def _step(self, number: int) -> None:
        features, labels = self.samples(number)
        (target,) = self.network.output_names
        feed = features if isinstance(features, dict) else {"x": features}

        def loss(changes: Changes) -> Tensor:
            made = self.network(feed, taps=changes.taps, absent=changes.absent)
            return functional.cross_entropy(made[target], labels)

        step = Step(number, self.steps, feed, labels, loss, self.rate)
        value = loss(self.method.before_forward(step))
        step = replace(step, value=value.detach())
        self.optimiser.zero_grad(set_to_none=True)
        (value + self.method.penalty(step)).backward()
        self.method.after_backward(step)
        self.optimiser.step()
        self.method.after_step(step)
