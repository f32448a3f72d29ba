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
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from onnxprune.allocation import Bound
from onnxprune.arrays import IndexArray
from onnxprune.choice import SEARCH_STEPS, Choice, Chooser
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
    _points: dict[Target, list[tuple[float, float]]] = field(default_factory=dict, init=False)

    def run(self) -> F:
        """The best model on which all targets hold.

        Raises:
            TargetError: they do on none, not even within the tolerance; the message says by how
                much.
        """
        made = self._under_costs() if self.bounds else self._within_damage()
        return self._best(made)

    def first(self) -> Choice:
        """The choice of the first model that ``run`` makes; none is made.

        Raises:
            TargetError: the targets cannot be reached.
        """
        if self.bounds:
            return self.chooser.under(list(self.bounds.values()), self.allowed)
        failed, held = self.chooser.least(self.macs), 1.0
        found = self.chooser.within(list(self.gauges.values()), self.macs, failed, held)
        _, choice = found or self._mildest(failed, held)
        return choice

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
            for target, bound in self.bounds.items():
                self._note(target, self.predicted(bound, choice.counts), made[-1])
            checks = [check for check in made[-1].checks if check.target.is_cost]
            off = _off(checks)
            for check in off:
                bound = replace(self.bounds[check.target], limit=self._aim(check))
                self.bounds = {**self.bounds, check.target: bound}
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
            blind = found is None and not made
            if blind:  # trials may say too much: the mildest pruning is measured before they count
                found = self._mildest(failed, held)
            if found is None and any(all(c.holds for c in m.checks) for m in made):
                break
            if found is None:  # the corrected trials leave nothing: half way back
                middle = (failed + held) / 2
                found = middle, self.chooser.at(middle, self.macs)
            fraction, choice = found
            made.append(self._finished(choice))
            for target, gauge in self.gauges.items():
                self._note(target, gauge.read(choice.counts), made[-1])
            if all(check.holds for check in made[-1].checks):
                held = fraction
            elif blind:
                raise TargetError(_nothing(gauges))
            else:
                failed = fraction
            off = _off(made[-1].checks)
            for check in off:
                gauge = replace(self.gauges[check.target], limit=self._aim(check))
                self.gauges = {**self.gauges, check.target: gauge}
            if not off:
                break
        return made

    def _mildest(self, failed: float, held: float) -> tuple[float, Choice]:
        """The largest fraction of the MACs that a search tells from all that may stay."""
        fraction = held - (held - failed) / 2**SEARCH_STEPS
        return fraction, self.chooser.at(fraction, self.macs)

    def _finished(self, choice: Choice) -> F:
        finished = self.finish(choice)
        for line in table(finished.checks):
            logger.debug("%s", line)
        return finished

    def _note(self, target: Target, predicted: float, model: F) -> None:
        measured = next(c.reached for c in model.checks if c.target == target)
        self._points.setdefault(target, []).append((predicted, measured))

    def _aim(self, check: Check) -> float:
        """The prediction to ask for, so that the limit is reached when it is measured."""
        points = self._points[check.target]
        if check.target.kind == "drop":  # whose noise has no slope, and which may be 0 or less
            return points[-1][0] + check.limit - points[-1][1]
        return aimed(points, check.limit)

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


def aimed(points: Sequence[tuple[float, float]], limit: float) -> float:
    """The prediction at which a measurement is likely to reach a limit.

    Between the nearest measurements on both sides of it, else along the line through the last two,
    else in proportion; at least half and at most twice the last prediction.

    Args:
        points: (predicted, measured) of what was tried so far; at least one.
        limit: the measurement aimed at.
    """
    below = max((p for p in points if p[1] <= limit), default=None)
    above = min((p for p in points if p[1] > limit), default=None)
    pair = (below, above) if below and above else tuple(points[-2:])
    last, measured = points[-1]
    found = last * limit / (measured or 1.0)
    if len(pair) == 2 and pair[0] and pair[1]:
        (x, y), (x_other, y_other) = pair
        if (x_other - x) * (y_other - y) > 0:
            found = x + (limit - y) * (x_other - x) / (y_other - y)
    return min(max(found, 0.5 * last), 2.0 * last) if last > 0 else found


def require_held(checks: Sequence[Check]) -> None:
    """Refuse a model that misses a target.

    Raises:
        TargetError: it does, by more than the tolerance; the message says by how much.
    """
    if any(check.misses for check in checks):
        raise TargetError(_missed(checks, 1))


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
