"""The settings of training with gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from onnxprune.train.gates import Gates

Estimator = Literal["two-pass", "gradient"]
ESTIMATORS: tuple[Estimator, ...] = ("two-pass", "gradient")


@dataclass(frozen=True)
class GateOptions:
    """How gates are learnt and when what they stand for is pruned.

    Attributes:
        price: what a section or unit has to lower the loss by to stay, in nats per sample:
            |log gamma| / N.
        log_gamma: |log gamma| itself, the price over all N samples; it stands in for ``price``.
        rate: step size of theta.
        initial: theta at the start. One half lets weights be learnt for both states alike; more
            disturbs a trained network less.
        floor: theta is kept at least here until a part is pruned, so that it still runs now and
            then and can come back.
        warm_up: share of the training in which theta stays where it is and nothing is pruned, so
            that weights which are not trained yet are not taken for useless ones.
        estimator: of the loss with a section less that without it: "two-pass" measures both, one
            section after the other; "gradient" takes the derivative by the gates, of all at once,
            and computes those that are off as well.
        every: steps from one measurement to the next.
        tolerance: theta up to which a part may be pruned.
        decay: share of the last weights of a section that is lost in a step in which it is off,
            whatever the learning rate; of a unit, of those that read it.
        decayed: it is pruned once they have fallen to this share of what they were when theta
            came down to the tolerance.
        tests: consecutive tests that it has to pass.
        test_every: steps between them.
    """

    price: float = 0.01
    log_gamma: float | None = None
    rate: float = 1.0
    initial: float = 0.5
    floor: float = 0.01
    warm_up: float = 0.2
    estimator: Estimator = "two-pass"
    every: int = 2
    tolerance: float = 0.05
    decay: float = 0.002
    decayed: float = 0.9
    tests: int = 3
    test_every: int = 10

    def __post_init__(self) -> None:
        for what in ("price", "rate", "log_gamma"):
            value = getattr(self, what)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{what} must be a positive number, not {value}")
        if not 0 <= self.floor < self.tolerance < self.initial <= 1:
            raise ValueError(
                f"floor {self.floor}, tolerance {self.tolerance} and initial {self.initial} must "
                "rise within 0 and 1"
            )
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up must be a share of the training below 1, not {self.warm_up}")
        for what in ("decay", "decayed"):
            if not 0 < getattr(self, what) <= 1:
                raise ValueError(f"{what} must be a share of weights, not {getattr(self, what)}")
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}")
        for what in ("every", "tests", "test_every"):
            if getattr(self, what) < 1:
                raise ValueError(f"{what} must be at least 1, not {getattr(self, what)}")

    def warms_up(self, step: int, total: int) -> bool:
        """Whether theta still stays where it is in a step of so many."""
        return step < self.warm_up * total

    def measures(self, step: int, total: int) -> bool:
        """Whether a step measures what gates are worth."""
        return step % self.every == 0 and not self.warms_up(step, total)

    def tests_now(self, step: int, total: int) -> bool:
        """Whether what can be pruned is pruned after a step."""
        return (step + 1) % self.test_every == 0 and not self.warms_up(step, total)

    def price_per_sample(self, samples: int) -> float:
        """|log gamma| / N for so many training samples."""
        return self.price if self.log_gamma is None else self.log_gamma / samples

    def gates(self, count: int, samples: int, seed: int) -> Gates:
        """So many gates, learnt from so many training samples."""
        return Gates(
            count,
            price=self.price_per_sample(samples),
            rate=self.rate,
            initial=self.initial,
            floor=self.floor,
            seed=seed,
        )
