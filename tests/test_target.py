"""Targets: what users write, and the bounds that come of it."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import Studied, convolutions, studied

from onnxprune.allocation import Bound
from onnxprune.target import KINDS, Target, bounds_of


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("macs=0.5", "macs", 0.5),
        ("macs=.5", "macs", 0.5),
        ("macs=1", "macs", 1.0),
        ("macs=20M", "macs", 20e6),
        ("macs=1.5g", "macs", 1.5e9),
        ("params=500k", "params", 500e3),
        ("params=2e5", "params", 2e5),
        ("params=2E+5", "params", 2e5),
        (" ratio = 0.3 ", "ratio", 0.3),
        ("ratio=0", "ratio", 0.0),
    ],
)
def test_targets_are_read_with_their_units(text, kind, value):
    assert Target.parse(text) == Target(kind, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "macs",
        "macs=",
        "=0.5",
        "macs=abc",
        "macs=-0.5",
        "macs=1.2.3",
        "macs=.",
        "macs=0.5x",
        "macs=50%",
        "macs:0.5",
        "macs=0.5,params=0.5",
        "macs=nan",
        "macs=inf",
        "macs=0.5 0.6",
    ],
)
def test_what_is_no_target_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is not a target; write for example macs=0\.5"):
        Target.parse(text)


@pytest.mark.parametrize("text", ["latency=0.5", "MACS=0.5", "size=1M"])
def test_unknown_kinds_are_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="unknown target") as caught:
        Target.parse(text)
    assert all(kind in str(caught.value) for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("macs", 0.0), ("params", -1.0), ("macs", float("nan")), ("macs", float("inf"))],
)
def test_costs_have_to_be_positive_numbers(kind, value):
    with pytest.raises(ValueError, match=f"target {kind} must be a number above 0"):
        Target(kind, value)


@pytest.mark.parametrize("value", [1.0, 30.0, -0.1, float("nan")])
def test_ratios_are_fractions(value):
    with pytest.raises(ValueError, match="fraction of the channels removed"):
        Target("ratio", value)


def test_the_text_form_can_be_read_again():
    for target in (Target("macs", 0.5), Target("params", 5e5), Target("ratio", 0.25)):
        assert Target.parse(str(target)) == target


@pytest.fixture(scope="module")
def known() -> Studied:
    """Conv 3 -> 8 and 8 -> 6 are groups of their own, Conv 6 -> 4 makes the output."""
    middle = "r = Relu(c) d = Conv <pads=[1,1,1,1]> (r, w3) h = Relu(d)"
    return studied(convolutions(middle, w2=(4, 6, 3, 3), w3=(6, 8, 3, 3)))


def bounds(known: Studied, *targets: Target, selected: tuple[int, ...] = (0, 1)) -> list[Bound]:
    sizes, params = known.study.sizes, 1000.0
    return bounds_of(targets, known.cost, sizes, np.array(selected), params)


def macs_at(first: int, second: int) -> int:
    """Counted by hand: 64 positions, kernels of 9."""
    return 64 * 9 * (3 * first + first * second + second * 4)


def test_fractions_refer_to_the_whole_and_numbers_are_absolute(known):
    half, absolute = bounds(known, Target("macs", 0.5), Target("macs", 30_000))
    assert half.full == absolute.full == macs_at(8, 6)
    assert half.limit == pytest.approx(0.5 * macs_at(8, 6))
    assert absolute.limit == pytest.approx(30_000)
    counts = np.array([[8, 6], [3, 5]])
    assert half.cost(counts).tolist() == [macs_at(8, 6), macs_at(3, 5)]


def test_a_fraction_of_the_parameters_is_one_of_the_files(known):
    (bound,) = bounds(known, Target("params", 0.25))
    assert bound.limit == pytest.approx(250)
    weights = 8 * 3 * 9 + 8 + 6 * 8 * 9 + 4 * 6 * 9 + 4
    assert bound.cost(np.array([8, 6])) == weights


def test_a_ratio_counts_the_channels_that_may_be_cut(known):
    (every,) = bounds(known, Target("ratio", 0.25))
    assert every.limit == pytest.approx(0.75 * 14)
    assert every.cost(np.array([5, 4])) == 9
    (one,) = bounds(known, Target("ratio", 0.25), selected=(1,))
    assert one.limit == pytest.approx(0.75 * 6)
    assert one.cost(np.array([8, 4])) == 4


def test_a_limit_that_is_met_exactly_holds(known):
    """14 channels, 7 of them removed: rounding must not refuse 7."""
    for ratio in (1 / 14, 5 / 14, 0.5, 9 / 14):
        (bound,) = bounds(known, Target("ratio", ratio))
        kept = round(14 * (1 - ratio))
        assert bound.cost(np.array([kept, 0])) <= bound.limit < bound.cost(np.array([kept + 1, 0]))
