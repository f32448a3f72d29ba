"""From targets to a pruned model on which they were measured to hold.

Counts are chosen by predictions: MACs, parameters and bytes are counted, the time of a run and
the damage are foreseen by models and quick trials. The finished model is then measured. If it
misses a target, or leaves much of one unused that could only be foreseen, the prediction is
corrected by what was measured and another model is made, from the same statistics and laws
(derived here).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from onnxprune.allocation import Bound
from onnxprune.choice import Choice, Chooser
from onnxprune.errors import TargetError
from onnxprune.gauges import Gauge
from onnxprune.target import Target
from onnxprune.verdict import Check, table

ROUNDS = 4
"""Finished models that are measured at most; each costs a recovery and a validation."""

logger = logging.getLogger(__name__)


class Finished(Protocol):
    """A finished model with what was measured on it."""

    @property
    def checks(self) -> Sequence[Check]:
        """Every target beside what was measured, in the targets' order."""

    @property
    def macs(self) -> float:
        """Multiply-accumulates, by which models that hold are compared."""


F = TypeVar("F", bound=Finished)


@dataclass
class Search(Generic[F]):
    """Accumulator: predictions under correction, and the models made so far.

    Attributes:
        chooser: chooses counts.
        macs: a bound on MACs, whose limit is searched where only damage is bounded.
        bounds: for each target on a cost, what predicts it.
        gauges: for each target on damage, what predicts it.
        finish: makes the model of a choice and measures every target on it.
        predicted: evaluates a bound at a choice's counts.
    """

    chooser: Chooser
    macs: Bound
    bounds: Mapping[Target, Bound]
    gauges: Mapping[Target, Gauge]
    finish: Callable[[Choice], F]
    predicted: Callable[[Bound, Mapping[str, int]], float]

    def run(self) -> F:
        """The best model that holds all targets.

        Raises:
            TargetError: none does within the tolerance; the message says by how much.
        """
        made: list[tuple[Choice, F]] = []
        for _ in range(ROUNDS):
            try:
                choice = self._choose()
            except TargetError:
                if not made:
                    raise
                break  # a corrected prediction asks for more than there is
            if any(choice.counts == before.counts for before, _ in made):
                break
            finished = self.finish(choice)
            made.append((choice, finished))
            for line in table(finished.checks):
                logger.debug("%s", line)
            if not self._correct(choice, finished.checks):
                break
        return self._best([finished for _, finished in made])

    def _choose(self) -> Choice:
        if self.bounds:
            return self.chooser.under(list(self.bounds.values()))
        return self.chooser.within(list(self.gauges.values()), self.macs)

    def _correct(self, choice: Choice, checks: Sequence[Check]) -> bool:
        """Correct the predictions that were off; whether another model should be tried."""
        deciding = [c for c in checks if not self.bounds or c.target.is_cost]
        over = [check for check in deciding if not check.holds]
        off = over or [check for check in deciding if check.wasteful]
        for check in off:
            if check.target in self.bounds:
                bound = self.bounds[check.target]
                limit = self.predicted(bound, choice.counts) * check.limit / (check.reached or 1.0)
                self.bounds = {**self.bounds, check.target: replace(bound, limit=limit)}
            else:
                gauge = self.gauges[check.target]
                self.gauges = {**self.gauges, check.target: _corrected(gauge, choice, check)}
        return bool(off)

    def _best(self, made: Sequence[F]) -> F:
        """Among those that hold the least pruned, or the most where only damage is bounded."""
        sign = 1.0 if self.bounds else -1.0
        held = [m for m in made if all(check.holds for check in m.checks)]
        near = [m for m in made if not any(check.misses for check in m.checks)]
        candidates = held or near
        if candidates:
            return max(candidates, key=lambda m: sign * m.macs)
        closest = min(made, key=lambda m: max(check.excess for check in m.checks))
        raise TargetError(_missed(closest.checks, len(made)))


def _corrected(gauge: Gauge, choice: Choice, check: Check) -> Gauge:
    """The gauge with a limit at which a model such as this one would just hold."""
    tried = gauge.read(choice.counts)
    if check.target.kind == "error" and check.reached > 0 and tried > 0:
        return replace(gauge, limit=tried * check.limit / check.reached)
    return replace(gauge, limit=tried + check.limit - check.reached)


def _missed(checks: Sequence[Check], models: int) -> str:
    """Says which targets the closest model misses, and by how much."""
    wrong = "; ".join(
        f"{c.target} asks for {c.asked_text} but {c.reached_text} was reached"
        + (f", {c.excess:.0%} more" if c.limit else "")
        for c in checks
        if c.misses
    )
    right = [str(check.target) for check in checks if not check.misses]
    beside = f" while {' and '.join(right)} held" if right else ""
    noun = "model" if models == 1 else "models"
    return (
        f"the targets do not hold on the finished model: {wrong}{beside} (the closest of {models} "
        f"{noun}). Loosen one of them, or give more calibration samples."
    )
