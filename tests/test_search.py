"""From targets to a model that was measured: corrections, steps back, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from onnxprune.allocation import Bound
from onnxprune.choice import Choice, Chooser
from onnxprune.errors import TargetError
from onnxprune.gauges import Gauge
from onnxprune.search import ROUNDS, Search, aimed
from onnxprune.target import Target
from onnxprune.verdict import TOLERANCE, Check

FULL = 100
TIME, ERROR, DROP = Target("latency", 0.5), Target("error", 0.1), Target("drop", 0.01)


@dataclass
class OneGroup:
    """Chooses for one group of 100 channels, each of which costs as much as any other."""

    floor: int = 10

    def under(self, bounds: list[Bound], allowed: Mapping[str, Any] | None = None) -> Choice:
        counts = range(FULL + 1) if allowed is None else allowed["a"].tolist()
        kept = max((c for c in counts if all(c <= b.limit for b in bounds)), default=0)
        if kept < self.floor:
            raise TargetError("cannot be reached")
        return Choice({"a": kept}, {})

    def least(self, macs: Bound) -> float:
        return self.floor / FULL

    def at(self, fraction: float, macs: Bound) -> Choice:
        return Choice({"a": int(fraction * FULL)}, {})

    def within(
        self, gauges: list[Gauge], macs: Bound, low: float, high: float
    ) -> tuple[float, Choice] | None:
        return Chooser.within(cast(Any, self), gauges, macs, low, high)

    options = cast(Any, type("Quiet", (), {"progress": False}))


@dataclass
class Model:
    checks: list[Check]
    macs: float


def search(
    targets: Mapping[Target, Callable[[int], float]],
    predicted: Callable[[int], float] = float,
    tried: Callable[[int], float] = float,
    floor: int = 10,
    step: int = 1,
) -> tuple[Search[Model], list[int]]:
    """A search where each target has a measured value at every count; costs are of 100."""
    made: list[int] = []

    def finish(choice: Choice) -> Model:
        count = choice.counts["a"]
        made.append(count)
        checks = []
        for target, measured in targets.items():
            full = measured(FULL) if target.is_cost else 0.0
            checks.append(Check(target, target.limit(full), measured(count), full))
        return Model(checks, count)

    bounds = {
        t: Bound(t.kind, lambda c: c, t.limit(predicted(FULL)), predicted(FULL))
        for t in targets
        if t.is_cost
    }
    gauges = {
        t: Gauge(t, t.value, lambda counts: tried(counts["a"])) for t in targets if not t.is_cost
    }
    macs = Bound("macs", lambda c: c, 0.0, float(FULL))
    chooser = cast(Chooser, OneGroup(floor))
    allowed = {"a": np.arange(floor, FULL + 1, step)}
    found = Search(chooser, macs, bounds, gauges, finish, lambda _, c: predicted(c["a"]), allowed)
    return found, made


def test_a_prediction_that_is_right_makes_one_model():
    found, made = search({TIME: float})
    assert found.run().macs == 50
    assert made == [50]


def test_a_time_that_falls_more_slowly_than_predicted_is_pursued():
    """A third of the time never goes away: half of it is left at a quarter of the channels."""
    found, made = search({TIME: lambda count: 100 / 3 + count * 2 / 3})
    model = found.run()
    assert made[0] == 50
    assert model.macs == made[-1] == 25
    assert len(made) <= ROUNDS
    assert model.checks[0].holds


def test_time_that_is_left_unused_is_given_back():
    """Twice as fast as predicted: more channels may stay."""
    found, made = search({TIME: lambda count: 100.0 * (count / 100) ** 2})
    model = found.run()
    assert made[0] == 50
    assert 68 <= model.macs <= 70
    assert model.checks[0].holds


def test_counted_costs_are_not_corrected_for_what_they_leave():
    found, made = search({Target("macs", 0.5): lambda c: c if c > 90 else c - 10})
    assert found.run().macs == 50
    assert made == [50]


def test_a_time_out_of_reach_says_how_near_it_comes():
    found, made = search({TIME: lambda count: 80 + count * 0.2})
    with pytest.raises(TargetError, match=r"latency=0.5 asks for at most 50.0% but 8\d\.\d% was"):
        found.run()
    assert len(made) <= ROUNDS


def test_a_miss_within_the_tolerance_is_kept_if_nothing_holds():
    near = 50 * (1 + TOLERANCE / 2)
    found, _ = search({TIME: lambda count: max(near, float(count))})
    assert found.run().checks[0].reached == pytest.approx(near)
    found, _ = search({TIME: lambda count: max(50 * (1 + 2 * TOLERANCE), float(count))})
    with pytest.raises(TargetError, match=r"6% more"):
        found.run()


def test_damage_beside_a_cost_is_a_limit_and_prunes_no_further():
    found, made = search({TIME: float, ERROR: lambda count: 0.001 * (FULL - count)})
    assert found.run().macs == 50
    assert made == [50]
    found, made = search({TIME: float, ERROR: lambda count: 0.003 * (FULL - count)})
    with pytest.raises(TargetError) as caught:
        found.run()
    assert "error=0.1 asks for at most 0.1 but 0.15 was reached, 50% more" in str(caught.value)
    assert "while latency=0.5 held" in str(caught.value)


def test_damage_alone_takes_all_it_may():
    damage = {ERROR: lambda count: 0.002 * (FULL - count)}
    found, made = search(damage, tried=damage[ERROR])
    assert found.run().macs == 50
    assert len(made) == 1


def test_trials_that_say_too_much_are_corrected():
    """Real weights do half of the damage of the trials'."""
    measured = {ERROR: lambda count: 0.002 * (FULL - count)}
    found, made = search(measured, tried=lambda count: 0.004 * (FULL - count))
    assert made == []
    assert 50 <= found.run().macs <= 52
    assert made[0] == 75


def test_trials_that_say_too_little_are_stepped_back_from():
    measured = {ERROR: lambda count: 0.004 * (FULL - count)}
    found, made = search(measured, tried=lambda count: 0.002 * (FULL - count))
    model = found.run()
    assert made[0] == 50
    assert 75 <= model.macs <= 78
    assert model.checks[0].holds


def test_trials_that_see_nothing_are_stepped_back_from_as_well():
    """No correction leaves a count that a blind trial accepts: the bracket is halved instead."""
    found, made = search({DROP: lambda count: 0.0 if count >= 80 else 0.05}, tried=lambda _: 0.0)
    model = found.run()
    assert made[0] < 80 <= model.macs
    assert len(made) <= ROUNDS


def test_several_limits_on_damage_all_hold():
    targets = {ERROR: lambda count: 0.001 * (FULL - count), DROP: lambda c: 0.0005 * (FULL - c)}
    found, _ = search(targets, tried=lambda count: 0.001 * (FULL - count))
    model = found.run()
    assert all(check.holds for check in model.checks)
    assert 80 <= model.macs <= 90


def test_that_nothing_can_go_is_said():
    found, made = search({ERROR: lambda _: 9.0}, tried=lambda _: 9.0)
    with pytest.raises(TargetError, match=r"nothing can be pruned within error=0\.1, .* accept"):
        found.run()
    assert made == [99]  # not even the mildest pruning holds


def test_trials_that_see_no_way_are_not_believed_before_a_model_is_measured():
    measured = {ERROR: lambda count: 0.001 * (FULL - count)}
    found, made = search(measured, tried=lambda count: 0.11 + 0.001 * (FULL - count))
    model = found.run()
    assert made[0] == 99
    assert model.macs < 50
    assert model.checks[0].holds


def test_models_that_all_do_too_much_are_refused_after_a_few():
    found, made = search({ERROR: lambda _: 9.0}, tried=lambda _: 0.0)
    with pytest.raises(TargetError, match=r"error=0.1 asks for .* \(the closest of 4 models\)"):
        found.run()
    assert len(made) == ROUNDS


def test_a_target_that_is_met_already_cuts_nothing():
    found, made = search({Target("latency", 1.0): float})
    assert found.run().macs == FULL
    assert made == [FULL]


def test_a_limit_is_aimed_at_along_what_was_measured():
    assert aimed([(10.0, 20.0)], 5.0) == 5.0  # a quarter in proportion, half at the most
    assert aimed([(10.0, 20.0)], 15.0) == 7.5
    assert aimed([(10.0, 20.0), (8.0, 18.0)], 16.0) == pytest.approx(6.0)  # a constant of 10
    between = aimed([(10.0, 20.0), (4.0, 11.0), (7.0, 14.0)], 15.0)
    assert between == pytest.approx(7.5)  # of 14 at 7 and 20 at 10
    assert aimed([(0.0, 0.2)], 0.1) == 0.0


@pytest.mark.parametrize(
    "found",
    [
        search({TIME: float}, step=7),
        search({TIME: lambda count: 100 / 3 + count * 2 / 3, ERROR: float}),
        search({ERROR: lambda count: 0.001 * (FULL - count)}, tried=lambda c: 0.002 * (FULL - c)),
        search({ERROR: lambda _: 0.0}, tried=lambda _: 9.0),  # blind: the mildest
    ],
)
def test_the_first_choice_is_that_of_the_first_model(found):
    looked_for, made = found
    first = looked_for.first()
    assert made == []
    with contextlib.suppress(TargetError):
        looked_for.run()
    assert made[0] == first.counts["a"]


def test_what_cannot_be_reached_has_no_first_choice():
    found, _ = search({TIME: float}, floor=60)
    with pytest.raises(TargetError):
        found.first()
