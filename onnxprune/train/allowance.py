"""How much of a budget is used: a share of its steps, or of its time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from onnxprune.refinement import Budget


@dataclass
class Allowance:
    """What a part of a training may take.

    Attributes:
        steps: most steps; None where time limits them.
        seconds: most seconds from its making on; None where steps do.
        reserve: seconds of it to leave for what comes after the last step.
        taken: steps taken.
    """

    steps: int | None
    seconds: float | None
    reserve: float = 0.0
    taken: int = 0
    _start: float = field(default_factory=time.perf_counter, init=False)

    @classmethod
    def of(cls, budget: Budget, per_epoch: int) -> Allowance:
        """All of a budget."""
        return cls(budget.limit_of(per_epoch), budget.seconds)

    def part(self, share: float, reserve: float = 0.0) -> Allowance:
        """A share of the whole, from now on."""
        steps = None if self.steps is None else max(1, round(share * self.steps))
        seconds = None if self.seconds is None else share * self.seconds
        return Allowance(steps, seconds, reserve)

    def rest(self, reserve: float = 0.0) -> Allowance:
        """What is left of it, from now on."""
        steps = None if self.steps is None else max(0, self.steps - self.taken)
        seconds = None if self.seconds is None else max(0.0, self.seconds - self.elapsed)
        return Allowance(steps, seconds, reserve)

    @property
    def elapsed(self) -> float:
        """Seconds since its making."""
        return time.perf_counter() - self._start

    @property
    def used(self) -> float:
        """The share that is used, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, self.taken / self.steps) if self.steps else 1.0
        limit = (self.seconds or 0.0) - self.reserve
        return min(1.0, self.elapsed / limit) if limit > 0 else 1.0

    @property
    def progress(self) -> float:
        """Steps that were taken, or seconds where time is the limit."""
        return float(self.taken) if self.steps is not None else self.elapsed

    @property
    def end(self) -> float:
        """What that comes to in the end."""
        return float(self.seconds or 0.0) if self.steps is None else float(self.steps)

    @property
    def unit(self) -> str:
        """What is counted."""
        return "s" if self.steps is None else "steps"
