"""Targets: what users write, and the bounds that come of it."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import Studied, convolutions, studied

from onnxprune.allocation import Bound, Costs
from onnxprune.bounds import FileSizes, bounds_of
from onnxprune.target import KINDS, Target


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
        ("size=0.5", "size", 0.5),
        ("size=10MB", "size", 10e6),
        ("size=10mb", "size", 10e6),
        ("size=1.5 MiB", "size", 1.5 * 2**20),
        ("size=300kB", "size", 300e3),
        ("size=4096B", "size", 4096.0),
        ("size=2G", "size", 2e9),
        ("latency=0.5", "latency", 0.5),
        ("error=0.02", "error", 0.02),
        ("error=2%", "error", 0.02),
        ("drop=1%", "drop", 0.01),
        ("drop=0.7%", "drop", 0.007),
        ("drop=0.01", "drop", 0.01),
        ("drop=0", "drop", 0.0),
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
        "macs=10MB",
        "params=5ms",
        "size=5ms",
        "size=50%",
        "size=10MBB",
        "latency=5MB",
        "latency=50%",
        "ratio=0.3k",
        "error=5dB",
        "drop=-1%",
    ],
)
def test_what_is_no_target_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is not a target; write for example macs=0\.5"):
        Target.parse(text)


@pytest.mark.parametrize("text", ["flops=0.5", "MACS=0.5", "speed=1M"])
def test_unknown_kinds_are_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="unknown target") as caught:
        Target.parse(text)
    assert all(kind in str(caught.value) for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("macs", 0.0),
        ("params", -1.0),
        ("macs", float("nan")),
        ("macs", float("inf")),
        ("size", 0.0),
        ("latency", 0.0),
        ("error", 0.0),
        ("drop", -0.1),
        ("drop", float("nan")),
    ],
)
def test_costs_have_to_be_positive_numbers(kind, value):
    with pytest.raises(ValueError, match=f"target {kind} must be a number above 0"):
        Target(kind, value)


@pytest.mark.parametrize("value", [1.0, 30.0, -0.1, float("nan")])
def test_ratios_are_fractions(value):
    with pytest.raises(ValueError, match="fraction of the channels removed"):
        Target("ratio", value)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("latency=5ms", 5.0), ("latency=0.25s", 250.0), ("latency=80us", 0.08)],
)
def test_times_have_a_unit(text, milliseconds):
    assert Target.parse(text) == Target("latency", milliseconds, "ms")


def test_a_time_without_its_unit_is_asked_for():
    with pytest.raises(ValueError, match=r"a time has a unit: latency=5ms"):
        Target.parse("latency=5")
    with pytest.raises(ValueError, match="has no unit 'ms'"):
        Target("macs", 5.0, "ms")


@pytest.mark.parametrize(
    "text",
    [
        "macs=0.5",
        "params=500000",
        "ratio=0.25",
        "size=10MB",
        "size=0.4",
        "size=512.25kB",
        "latency=0.6",
        "latency=0.08ms",
        "error=0.02",
        "drop=1%",
        "drop=0.7%",
        "drop=2.5",
    ],
)
def test_the_text_form_can_be_read_again(text):
    assert str(Target.parse(text)) == text
    assert Target.parse(str(Target.parse(text))) == Target.parse(text)


def test_a_limit_is_a_fraction_a_number_or_what_is_left():
    assert Target.parse("macs=0.25").limit(400.0) == 100.0
    assert Target.parse("macs=250").limit(400.0) == 250.0
    assert Target.parse("latency=0.5").limit(3.0) == 1.5
    assert Target.parse("latency=0.5ms").limit(3.0) == 0.5
    assert Target.parse("ratio=0.25").limit(16.0) == 12.0
    assert Target.parse("error=0.05").limit(0.0) == 0.05
    assert Target.parse("drop=1%").limit(0.0) == 0.01


@pytest.fixture(scope="module")
def known() -> Studied:
    """Conv 3 -> 8 and 8 -> 6 are groups of their own, Conv 6 -> 4 makes the output."""
    middle = "r = Relu(c) d = Conv <pads=[1,1,1,1]> (r, w3) h = Relu(d)"
    return studied(convolutions(middle, w2=(4, 6, 3, 3), w3=(6, 8, 3, 3)))


def channels_of(*groups: int) -> Costs:
    return lambda counts: counts[..., list(groups)].sum(axis=-1)


def bounds(known: Studied, *targets: Target, selected: tuple[int, ...] = (0, 1)) -> list[Bound]:
    sizes, params = known.study.sizes, 1000.0
    return bounds_of(targets, known.cost, sizes, channels_of(*selected), params)


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


def test_a_size_is_that_of_the_file(known):
    """Four bytes a weight and a rest that stays."""
    sizes, files = known.study.sizes, FileSizes(10_000, 9_000)
    targets = [Target("size", 0.5), Target("size", 6_000.0)]
    arguments = (known.cost, sizes, channels_of(0, 1), 1000.0)
    half, absolute = bounds_of(targets, *arguments, files=files)
    assert half.limit == pytest.approx(5_000)
    assert absolute.limit == pytest.approx(6_000)
    removed = 3 * (3 * 9 + 1) + 3 * 6 * 9  # of the first layer and its bias, and of the second
    assert half.cost(np.array([8, 6])) == pytest.approx(9_000)
    assert half.cost(np.array([5, 6])) == pytest.approx(9_000 - 4 * removed)


def test_a_time_is_asked_of_what_predicts_it_and_only_then(known):
    sizes = known.study.sizes
    arguments = (known.cost, sizes, channels_of(0, 1), 1000.0)

    def never():
        pytest.fail("nothing asked for the time")

    bounds_of([Target("macs", 0.5)], *arguments, latency=never)
    half, absolute = bounds_of(
        [Target("latency", 0.5), Target("latency", 3.0, "ms")],
        *arguments,
        latency=lambda: lambda counts: counts.sum(axis=-1) / 7.0,
    )
    assert (half.full, half.limit) == (2.0, pytest.approx(1.0))
    assert absolute.limit == pytest.approx(3.0)
    assert not half.multilinear
    with pytest.raises(ValueError, match="nothing predicts the cost 'latency'"):
        bounds_of([Target("latency", 0.5)], *arguments)


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


@pytest.mark.parametrize(
    "text", ["params=51e9994611686018427387904k", "macs=1e999", "size=9e400GB"]
)
def test_numbers_beyond_all_bounds_are_refused(text):
    with pytest.raises(ValueError, match="must be a number above 0, not inf"):
        Target.parse(text)
