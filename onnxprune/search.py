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
from onnxprune.arrays import IndexArray
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
        macs: the MACs, of which as few as possible are kept where only damage is bounded.
        bounds: for each target on a cost, what predicts it.
        gauges: for each target on damage, what predicts it.
        finish: makes the model of a choice and measures every target on it.
        predicted: evaluates a bound at a choice's counts.
        allowed: group name -> the counts to choose among under bounds on costs.
    """

    chooser: Chooser
    macs: Bound
    bounds: Mapping[Target, Bound]
    gauges: Mapping[Target, Gauge]
    finish: Callable[[Choice], F]
    predicted: Callable[[Bound, Mapping[str, int]], float]
    allowed: Mapping[str, IndexArray]

    def run(self) -> F:
        """The best model on which all targets hold.

        Raises:
            TargetError: they do on none, not even within the tolerance; the message says by how
                much.
        """
        made = self._under_costs() if self.bounds else self._within_damage()
        return self._best(made)

    def _under_costs(self) -> list[F]:
        """Models at the predicted limits, corrected by the measured ones."""
        seen: list[Mapping[str, int]] = []
        made: list[F] = []
        while len(made) < ROUNDS:
            try:
                choice = self.chooser.under(list(self.bounds.values()), self.allowed)
            except TargetError:
                if not made:
                    raise
                break  # a corrected prediction asks for more than there is
            if choice.counts in seen:
                break
            seen.append(choice.counts)
            made.append(self._finished(choice))
            checks = [check for check in made[-1].checks if check.target.is_cost]
            off = _off(checks)
            for check in off:
                bound = self.bounds[check.target]
                predicted = self.predicted(bound, choice.counts)
                limit = predicted * check.limit / (check.reached or 1.0)
                self.bounds = {**self.bounds, check.target: replace(bound, limit=limit)}
            if not off:
                break
        return made

    def _within_damage(self) -> list[F]:
        """Models with ever fewer MACs while the damage is within its limits, else with more."""
        made: list[F] = []
        failed, held = self.chooser.least(self.macs), 1.0
        while len(made) < ROUNDS:
            gauges = list(self.gauges.values())
            found = self.chooser.within(gauges, self.macs, failed, held)
            if found is None and not made:
                raise TargetError(_nothing(gauges))
            if found is None and any(all(c.holds for c in m.checks) for m in made):
                break
            if found is None:  # the corrected trials leave nothing: half way back
                middle = (failed + held) / 2
                found = middle, self.chooser.at(middle, self.macs)
            fraction, choice = found
            made.append(self._finished(choice))
            if all(check.holds for check in made[-1].checks):
                held = fraction
            else:
                failed = fraction
            off = _off(made[-1].checks)
            for check in off:
                gauge = _corrected(self.gauges[check.target], choice, check)
                self.gauges = {**self.gauges, check.target: gauge}
            if not off:
                break
        return made

    def _finished(self, choice: Choice) -> F:
        finished = self.finish(choice)
        for line in table(finished.checks):
            logger.debug("%s", line)
        return finished

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


def _off(checks: Sequence[Check]) -> list[Check]:
    """Those that are exceeded; if none is, those that leave much unused."""
    return [c for c in checks if not c.holds] or [c for c in checks if c.wasteful]


def _nothing(gauges: Sequence[Gauge]) -> str:
    limits = " and ".join(str(gauge.target) for gauge in gauges)
    return (
        f"nothing can be pruned within {limits}, judged by samples that the weights were not "
        "fitted on; accept more, give a target such as macs=0.7, or more calibration samples"
    )


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
