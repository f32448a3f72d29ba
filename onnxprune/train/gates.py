"""Bernoulli gates on parts of a network, and how the chance that each is on is learnt.

Part l of a network is multiplied by xi_l, which is 1 with probability theta_l and else 0, drawn
anew for every mini-batch. Minimised over the weights W and over theta in [0, 1] is

    J = E_xi[NLL] + lambda/2 |W|^2 + |log gamma| sum_l theta_l,  0 < gamma < 1,

the variational objective under the flattening hyper-prior on the gates' prior chance pi,
p(pi | gamma) = (gamma - 1) / log gamma / (1 + (gamma - 1)(1 - pi)): the minimum over pi of
KL(theta || pi) - log p(pi | gamma) is theta |log gamma| and a constant, at
pi = gamma theta / (1 - theta + gamma theta). J is affine in each theta_l with the others fixed, so
that it has minima at zeros and ones, which describe ordinary networks. Its slope is
C1 - C0 + |log gamma|: the expected NLL with the part on less that with it off, neither of which
depends on theta_l itself.

Here NLL is a mean over samples, so that the price |log gamma| is divided by their number N.

Sources: Guenter and Sideris, arXiv 2406.04549 (sections) and arXiv 2205.04650 (units). The minimum
over pi is derived here and checked by a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.arrays import Array, IndexArray, Vector


class Gates:
    """The gates of a network and the projected stochastic gradient descent on their theta.

    Args:
        count: how many parts are gated.
        price: |log gamma| / N, in nats per sample: what a part has to be worth to stay.
        rate: step size of the updates.
        initial: theta at the start.
        floor: the least that an update leaves, so that a part still runs now and then and can come
            back.
        seed: of the draws.

    Raises:
        ValueError: a setting makes no sense.
    """

    def __init__(
        self,
        count: int,
        *,
        price: float,
        rate: float,
        initial: float = 0.9,
        floor: float = 0.01,
        seed: int = 0,
    ) -> None:
        for what, value in (("price of a gate", price), ("rate of theta", rate)):
            if not 0 < value < math.inf:
                raise ValueError(f"the {what} must be a positive number, not {value}")
        if not 0 <= floor < 1:
            raise ValueError(f"the floor of theta must be at least 0 and below 1, not {floor}")
        if not floor < initial <= 1:
            raise ValueError(
                f"theta must start above its floor of {floor} and at most at 1, not at {initial}"
            )
        self.price = price
        self.rate = rate
        self.floor = floor
        self._theta = np.full(count, float(initial))
        self._random = np.random.default_rng(seed)

    @property
    def theta(self) -> Vector:
        """The chance of every gate to be on, a copy, shape (gates,)."""
        return self._theta.copy()

    def draw(self) -> Array:
        """Which gates are on in a mini-batch, shape (gates,), bool."""
        drawn: Array = self._random.random(self._theta.size) < self._theta
        return drawn

    def update(self, measured: IndexArray, differences: Vector) -> None:
        """One projected step of the gates that were measured.

        theta <- clip(theta - rate (C1 - C0 + price), floor, 1).

        Args:
            measured: which gates, each once.
            differences: an estimate of C1 - C0 for each, in nats per sample.

        Raises:
            ValueError: an estimate is not finite.
        """
        if not np.isfinite(differences).all():
            raise ValueError("the loss with a gate on and off does not differ by a finite number")
        moved = self._theta[measured] - self.rate * (differences + self.price)
        self._theta[measured] = np.clip(moved, self.floor, 1.0)

    def keep(self, which: Array) -> None:
        """Forget the gates of parts that are gone.

        Args:
            which: shape (gates,), bool.
        """
        self._theta = self._theta[which]

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on with the same draws and updates, as JSON values."""
        return {"theta": self._theta.tolist(), "random": self._random.bit_generator.state}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is the state of another number of gates.
        """
        if len(state["theta"]) != self._theta.size:
            raise ValueError(
                f"the state is of {len(state['theta'])} gates, there are {self._theta.size}"
            )
        self._theta = np.array(state["theta"], np.float64)
        self._random.bit_generator.state = state["random"]
