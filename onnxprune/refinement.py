"""Refinement after pruning: how it is asked for, and what it did. Nothing here needs torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal, get_args

from onnxprune.durations import seconds_in
from onnxprune.errors import MissingLibraryError

OptimizerName = Literal["adamw", "sgd"]
MethodName = Literal["backprop", "decorrelated"]
FORMS = "a time as 300s, 5m or 1h, epochs=2 or steps=1000"


@dataclass(frozen=True)
class Budget:
    """How long a refinement may take: one of the three.

    Attributes:
        seconds: of time, the choice of a learning rate included.
        epochs: passes over the samples to fit on; not only whole ones.
        steps: of the optimiser.
    """

    seconds: float | None = None
    epochs: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.seconds, self.epochs, self.steps) if v is not None]
        if len(given) != 1:
            raise ValueError("a budget is a time, a number of epochs or a number of steps")
        if not 0 < given[0] < math.inf:
            raise ValueError(f"the budget of a refinement is more than nothing, not {given[0]:g}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget from ``300s``, ``5m``, ``1h``, ``epochs=2`` or ``steps=1000``.

        Raises:
            ValueError: the text is none of them.
        """
        time = seconds_in(text)
        count = re.fullmatch(r"(epochs=(\d+(?:\.\d+)?)|steps=(\d+))", text.strip())
        if time is not None:
            return cls(seconds=time)
        if count is None:
            raise ValueError(f"the budget of a refinement is {FORMS}, not '{text}'")
        return cls(epochs=float(count[2])) if count[2] else cls(steps=int(count[3]))

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g}s"
        return f"epochs={self.epochs:g}" if self.epochs is not None else f"steps={self.steps}"

    def divided(self, parts: int) -> Budget:
        """An equal part of it, of at least one step."""
        if self.steps is not None:
            return Budget(steps=max(1, self.steps // parts))
        if self.epochs is not None:
            return Budget(epochs=self.epochs / parts)
        return Budget(seconds=(self.seconds or 0.0) / parts)

    def limit_of(self, per_epoch: int) -> int | None:
        """Steps that there may be, at least one; None where time limits them.

        Args:
            per_epoch: steps of one pass.
        """
        if self.epochs is not None:
            return max(1, round(self.epochs * per_epoch))
        return self.steps


@dataclass(frozen=True)
class Refine:
    """What ``prune`` is to do after pruning.

    Attributes:
        budget: how long it may take.
        rate: largest learning rate; None to find it by short trials.
        optimizer: "adamw" or "sgd" (with Nesterov's momentum).
        blocks: weight of the squared relative errors at the outputs of residual blocks beside the
            divergence of the network's outputs; 0 for none.
        augment: random changes of the samples that are fitted on, which the original sees too; see
            ``train.augmentation``.
        method: "backprop", or "decorrelated" for layers that read uncorrelated inputs, by
            transforms that a tenth of the budget learns first (see ``train.decorrelation``).
    """

    budget: Budget
    rate: float | None = None
    optimizer: OptimizerName = "adamw"
    blocks: float = 1.0
    augment: tuple[str, ...] = ()
    method: MethodName = "backprop"

    def __post_init__(self) -> None:
        for name, kind in (("optimizer", OptimizerName), ("method", MethodName)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ValueError(f"unknown {name} '{getattr(self, name)}'; known: {known}")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"the learning rate is more than 0, not {self.rate:g}")
        if not 0 <= self.blocks < math.inf:
            raise ValueError(f"the weight of block outputs is at least 0, not {self.blocks:g}")

    def settings(self) -> dict[str, object]:
        """The settings as JSON values."""
        return {**vars(self), "budget": str(self.budget), "augment": list(self.augment)}


@dataclass(frozen=True)
class Refinement:
    """What a refinement did.

    Attributes:
        before: divergence of the pruned model's outputs on samples that nothing was fitted on,
            softened and summed over outputs (see ``comparison``).
        after: the same of the model that was kept; never more.
        seconds: time that it took.
        steps: steps of the optimiser, those of the trials included.
        rate: largest learning rate.
        trials: learning rate -> divergence after a short trial.
    """

    before: float
    after: float
    seconds: float
    steps: int
    rate: float
    trials: Mapping[float, float] = field(default_factory=dict)

    @property
    def improved(self) -> bool:
        """Whether the weights were changed."""
        return self.after < self.before

    def to_dict(self) -> dict[str, object]:
        """The record as JSON values."""
        trials = [
            {"rate": rate, "divergence": found if math.isfinite(found) else None}
            for rate, found in self.trials.items()
        ]
        return {**vars(self), "trials": trials, "improved": self.improved}

    def __str__(self) -> str:
        noun = "step" if self.steps == 1 else "steps"
        work = f"{self.steps} {noun} in {self.seconds:.0f} s, learning rate {self.rate:.3g}"
        if not self.improved:
            return (
                f"refined: nothing improved the divergence on unseen samples, {self.before:.4g}; "
                f"the weights stay as they were ({work})"
            )
        return (
            f"refined: divergence on unseen samples {self.before:.4g} before, {self.after:.4g} "
            f"after ({work})"
        )


def require_torch() -> None:
    """Refuse to refine without torch, before any work.

    Raises:
        MissingLibraryError: it is not installed.
    """
    if find_spec("torch") is None:
        raise MissingLibraryError(
            "refining needs torch; install it: pip install torch, or this package with its extra "
            "[train]"
        )
