"""Criteria: contract tests of all of them in one table, and the laws of single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.criteria import (
    CRITERIA,
    Obs,
    Random,
    Settings,
    Subspace,
    error_curve,
)
from onnxprune.criteria.balance import balanced_order
from onnxprune.criteria.elimination import BlockElimination
from onnxprune.criteria.joint_gram import joint_channel_gram
from onnxprune.criteria.reduction import feature_table, shrunk
from onnxprune.criteria.spectra import behind, pivots
from onnxprune.layer_problem import GroupProblem, LayerProblem, Targets
from onnxprune.ranking import Ranking

# the ridge of 1e-6 per feature against least squares on the samples themselves
RIDGE = 2e-4
# float64 eps times the growth of P, at most 1 / ridge
ROUNDING = 1e-8


@dataclass(frozen=True)
class Law:
    """What a criterion promises beyond the common contract."""

    name: str
    permutes: bool = True
    dead_last: bool = True
    copy_last: bool = False
    centred: bool = False


LAWS = [
    Law("obs", copy_last=True, centred=True),
    Law("snp"),
    Law("squeeze", copy_last=True, centred=True),
    Law("l1"),
    Law("l2"),
    Law("medoids"),
    Law("variance", centred=True),
    Law("random", permutes=False, dead_last=False),
]
NAMES = [law.name for law in LAWS]


def ranked(name: str, problem: GroupProblem) -> Ranking:
    return CRITERIA[name](Settings()).rank(problem)


EXACT = 10**15
"""Rows behind moments that are taken for those of all samples there are."""


@dataclass(frozen=True)
class Data:
    """The samples behind a layer problem: x with the constant, and the targets."""

    x: np.ndarray
    y: np.ndarray


def layer(
    rng: np.random.Generator,
    channels: np.ndarray,
    taps: int = 1,
    rows: int = 300,
    outputs: int = 4,
    edit: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    noise: bool = False,
    name: str = "consumer",
) -> tuple[LayerProblem, Data]:
    """A consumer of random correlated samples; ``edit`` changes x (rows, entries, taps)."""
    width = len(channels) * taps
    mixed = rng.standard_normal((rows, width)) @ rng.standard_normal((width, width))
    x = np.maximum(mixed + rng.standard_normal(width), -0.5)
    x = edit(x.reshape(rows, len(channels), taps)).reshape(rows, width)
    x = np.column_stack([x, np.ones(rows)])
    weight = rng.standard_normal((outputs, width + 1))
    y = x @ weight.T
    if noise:
        y = y + 3 * rng.standard_normal(y.shape) + np.sin(x[:, :1])
    gram = x.T @ x / rows
    given = Targets(y.T @ x / rows, float(np.sum(y**2)) / rows) if noise else None
    problem = LayerProblem(name, weight, gram, gram, channels, taps, EXACT, False, given, given)
    return problem, Data(x, y)


def group(*layers: LayerProblem, channels: np.ndarray, parts: int = 1) -> GroupProblem:
    rng = np.random.default_rng(len(channels))
    return GroupProblem(
        name="group",
        channels=channels,
        parts=np.arange(len(channels)) * parts // max(len(channels), 1),
        consumers=layers,
        producer_weights=(rng.standard_normal((len(channels), 5)),),
    )


def simple(seed: int = 0, units: int = 6, taps: int = 2, parts: int = 1, **kwargs) -> GroupProblem:
    channels = np.arange(units)
    problem, _ = layer(np.random.default_rng(seed), channels, taps, **kwargs)
    return group(problem, channels=channels, parts=parts)


def least_squares_error(
    problem: LayerProblem, data: Data, channels: np.ndarray, kept: np.ndarray
) -> float:
    """What keeping some channels of a group adds to the error, refitted on the samples."""
    stays = ~np.isin(problem.channels, np.setdiff1d(channels, kept))
    columns = np.append(np.repeat(stays, problem.taps), True)

    def residual(x: np.ndarray) -> np.ndarray:
        fit, *_ = np.linalg.lstsq(x, data.y, rcond=None)
        return data.y - x @ fit

    best = data.y - residual(data.x)
    rise = np.sum(residual(data.x[:, columns]) ** 2) - np.sum(residual(data.x) ** 2)
    return float(rise / np.sum((best - best.mean(axis=0)) ** 2))


def naive_elimination(
    layers: list[tuple[LayerProblem, Data]], channels: np.ndarray, parts: np.ndarray
) -> Ranking:
    """Backward elimination by recomputing every candidate from the samples."""
    left = list(range(len(channels)))
    removed: list[int] = []
    errors = [0.0]
    while left:
        counts = np.bincount(parts[left])[parts[left]]
        trials = {
            unit: sum(
                least_squares_error(p, d, channels, channels[[u for u in left if u != unit]])
                for p, d in layers
            )
            for unit, count in zip(left, counts, strict=True)
            if count == counts.max()
        }
        unit = min(trials, key=lambda u: trials[u])
        left.remove(unit)
        removed.append(unit)
        errors.append(trials[unit])
    return Ranking(np.array(removed[::-1]), np.array(errors[::-1]))


@pytest.mark.parametrize("name", NAMES)
@given(
    units=st.integers(1, 7),
    taps=st.integers(1, 3),
    rows=st.integers(1, 40),
    parts=st.integers(1, 2),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=12, deadline=None)
def test_contract(name, units, taps, rows, parts, seed):
    """Few rows give rank-deficient Grams; one row gives one without variance."""
    problem = simple(seed, units * parts, taps, parts, rows=rows)
    before = [problem.consumers[0].gram.copy(), problem.consumers[0].weight.copy()]
    ranking = ranked(name, problem)
    count = units * parts
    assert ranking.order.dtype == np.int64
    assert sorted(ranking.order) == list(range(count))
    assert ranking.error.shape == (count + 1,)
    assert ranking.error[-1] == 0
    assert np.all(np.isfinite(ranking.error))
    assert np.all(np.diff(ranking.error) <= 0)
    again = ranked(name, problem)
    np.testing.assert_array_equal(again.order, ranking.order)
    np.testing.assert_array_equal(again.error, ranking.error)
    np.testing.assert_array_equal(problem.consumers[0].gram, before[0])
    np.testing.assert_array_equal(problem.consumers[0].weight, before[1])
    for kept in range(parts, count + 1, parts):
        counts = np.bincount(problem.parts[ranking.order[:kept]], minlength=parts)
        assert np.all(counts == counts[0])


@pytest.mark.parametrize("name", NAMES)
def test_scaling_the_data_changes_nothing(name):
    problem = simple(1)
    factor = np.append(np.full(12, 1e-3), 1.0)
    old = problem.consumers[0]
    gram = old.gram * np.outer(factor, factor)
    scaled = replace(problem, consumers=(replace(old, gram=gram, tune_gram=gram),))
    want, got = ranked(name, problem), ranked(name, scaled)
    np.testing.assert_array_equal(got.order, want.order)
    np.testing.assert_allclose(got.error, want.error, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("law", [law for law in LAWS if law.permutes], ids=lambda law: law.name)
def test_permuting_channels_permutes_the_ranking(law):
    problem = simple(2)
    order = np.random.default_rng(0).permutation(6)
    permuted = replace(
        problem,
        channels=problem.channels[order],
        producer_weights=tuple(weight[order] for weight in problem.producer_weights),
    )
    want, got = ranked(law.name, problem), ranked(law.name, permuted)
    np.testing.assert_array_equal(order[got.order], want.order)
    np.testing.assert_allclose(got.error, want.error, atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "value"),
    [(law.name, 0.0) for law in LAWS if law.dead_last]
    # a constant that is not zero is activity to the uncentred criteria
    + [(law.name, 2.0) for law in LAWS if law.centred],
)
def test_a_dead_channel_goes_last(name, value):
    def kill(x: np.ndarray) -> np.ndarray:
        x[:, 2] = value
        return x

    ranking = ranked(name, simple(3, edit=kill))
    assert ranking.order[-1] == 2
    assert ranking.error[-2] == 0


@pytest.mark.parametrize("law", [law for law in LAWS if law.copy_last], ids=lambda law: law.name)
def test_the_second_copy_of_a_channel_goes_last(law):
    def copy(x: np.ndarray) -> np.ndarray:
        x[:, 4] = x[:, 1]
        return x

    ranking = ranked(law.name, simple(4, edit=copy))
    assert ranking.order[-1] in (1, 4)
    assert ranking.error[-2] < RIDGE
    assert ranking.error[-3] > RIDGE


@pytest.mark.parametrize("noise", [False, True], ids=["own targets", "given targets"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("taps", [1, 3])
def test_obs_is_elimination_by_recomputation(taps, parts, noise):
    channels = np.arange(6)
    found = layer(np.random.default_rng(taps), channels, taps, noise=noise)
    problem = group(found[0], channels=channels, parts=parts)
    want = naive_elimination([found], channels, problem.parts)
    got = Obs().rank(problem)
    np.testing.assert_array_equal(got.order, want.order)
    np.testing.assert_allclose(got.error, want.error, rtol=RIDGE, atol=RIDGE)


def ragged_layers() -> tuple[np.ndarray, list[tuple[LayerProblem, Data]]]:
    """Two consumers: unequal blocks, a unit one of them does not read, other groups' channels."""
    rng = np.random.default_rng(7)
    channels = np.array([14, 11, 12, 19, 13])
    first = layer(rng, np.array([11, -1, 12, 12, 3, 13, 14, 14, 14]), taps=2, outputs=3)
    second = layer(rng, np.array([19, 14, 5, 13, 11]), taps=1, outputs=6, name="other")
    return channels, [first, second]


def test_several_consumers_with_ragged_blocks():
    channels, found = ragged_layers()
    problem = group(*(p for p, _ in found), channels=channels)
    want = naive_elimination(found, channels, problem.parts)
    got = Obs().rank(problem)
    np.testing.assert_array_equal(got.order, want.order)
    np.testing.assert_allclose(got.error, want.error, rtol=RIDGE, atol=RIDGE)


def test_the_feature_table_finds_every_feature_once():
    channels, found = ragged_layers()
    table = feature_table(found[0][0], channels)
    np.testing.assert_array_equal(table[1], [0, 1, -1, -1, -1, -1])
    np.testing.assert_array_equal(table[0], [12, 13, 14, 15, 16, 17])
    np.testing.assert_array_equal(table[3], [-1] * 6)
    assert feature_table(found[1][0], np.array([77, 78])).shape == (2, 0)


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_the_real_errors_of_refitted_consumers(name):
    channels, found = ragged_layers()
    ranking = ranked(name, group(*(p for p, _ in found), channels=channels))
    for kept in range(len(channels) + 1):
        survivors = channels[ranking.order[:kept]]
        want = sum(least_squares_error(p, d, channels, survivors) for p, d in found)
        np.testing.assert_allclose(ranking.error[kept], want, rtol=RIDGE, atol=RIDGE)


@given(
    units=st.integers(1, 9),
    block=st.integers(1, 4),
    panel=st.integers(1, 12),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30, deadline=None)
def test_lazy_downdates_equal_the_plain_recursion(units, block, panel, seed):
    rng = np.random.default_rng(seed)
    size = units * block
    root = rng.standard_normal((size, size + 2))
    gram, weight = root @ root.T / size + 0.1 * np.eye(size), rng.standard_normal((3, size))
    state = BlockElimination(gram, weight, block, panel)
    P, W = np.linalg.inv(gram), weight.copy()
    left = set(range(units))
    for unit in rng.permutation(units):
        want = np.full(units, np.inf)
        for other in left:
            rows = slice(other * block, (other + 1) * block)
            want[other] = np.trace(W[:, rows] @ np.linalg.solve(P[rows, rows], W[:, rows].T))
        np.testing.assert_allclose(state.costs(), want, rtol=1e-6, atol=1e-9)
        state.remove(int(unit))
        left.remove(int(unit))
        rows = slice(unit * block, (unit + 1) * block)
        ratio = np.linalg.solve(P[rows, rows], P[rows])
        W, P = W - W[:, rows] @ ratio, P - P[:, rows] @ ratio


@given(units=st.integers(1, 12), taps=st.integers(1, 3), seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_obs_errors_equal_the_triangular_error_curve(units, taps, seed):
    problem = simple(seed, units, taps)
    ranking = Obs().rank(problem)
    curve = error_curve(problem, ranking.order)
    np.testing.assert_allclose(ranking.error, curve, rtol=1e-6, atol=ROUNDING)


def test_a_group_that_nothing_depends_on_costs_nothing():
    problem = simple(8)
    silent = replace(problem.consumers[0], weight=np.zeros_like(problem.consumers[0].weight))
    elsewhere = replace(problem.consumers[0], channels=np.arange(6) + 50)
    for name in NAMES:
        ranking = ranked(name, replace(problem, consumers=(silent, elsewhere)))
        np.testing.assert_array_equal(ranking.error, 0.0)


def test_snp_takes_the_largest_conditional_second_moment_first():
    problem = simple(9, taps=2)
    gram = problem.consumers[0].gram
    joint = (gram[0:12:2, 0:12:2] + gram[1:12:2, 1:12:2]) / 2
    joint /= np.trace(joint)
    np.testing.assert_allclose(joint_channel_gram(problem), joint, rtol=1e-12)
    order = Subspace().rank(problem).order
    for step, unit in enumerate(order):
        kept, rest = order[:step], order[step:]
        inner = np.linalg.inv(joint[np.ix_(kept, kept)])
        cond = joint - joint[:, kept] @ inner @ joint[kept]
        assert np.argmax(np.diag(cond)[rest]) == 0, unit


def test_snp_gives_every_consumer_one_vote():
    channels, found = ragged_layers()
    problem = group(*(p for p, _ in found), channels=channels)
    big = replace(found[0][0], gram=found[0][0].gram * 1e6)
    louder = replace(problem, consumers=(big, found[1][0]))
    np.testing.assert_allclose(joint_channel_gram(louder), joint_channel_gram(problem))
    np.testing.assert_allclose(np.trace(joint_channel_gram(problem)), 2.0)


def test_magnitude_normalises_producers_and_falls_back_to_consumers():
    problem = simple(10)
    quiet, loud = np.diag([6.0, 5, 4, 3, 2, 1]), 1e6 * np.ones((6, 2))
    both = replace(problem, producer_weights=(quiet, loud))
    np.testing.assert_array_equal(ranked("l2", both).order, np.arange(6))
    weight = problem.consumers[0].weight[:, :-1].reshape(-1, 6, 2)
    fallback = replace(problem, producer_weights=())
    want = np.argsort(-np.abs(weight).sum(axis=(0, 2)))
    np.testing.assert_array_equal(ranked("l1", fallback).order, want)
    want = np.argsort(-np.square(weight).sum(axis=(0, 2)))
    np.testing.assert_array_equal(ranked("l2", fallback).order, want)


def test_variance_is_centred():
    problem, data = layer(np.random.default_rng(11), np.arange(5), outputs=2)
    want = np.argsort(-data.x[:, :-1].var(axis=0))
    got = ranked("variance", group(problem, channels=np.arange(5))).order
    np.testing.assert_array_equal(got, want)


def test_random_depends_on_seed_and_group_only():
    problem = simple(12, units=30, taps=1)
    base = Random(3).rank(problem).order
    np.testing.assert_array_equal(base, CRITERIA["random"](Settings(seed=3)).rank(problem).order)
    assert not np.array_equal(base, Random(4).rank(problem).order)
    assert not np.array_equal(base, Random(3).rank(replace(problem, name="else")).order)


def test_balanced_order_takes_rounds():
    scores = np.array([9.0, 8, 7, 1, 3, 2])
    order = balanced_order(scores, np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(order, [0, 4, 1, 5, 2, 3])
    ties = balanced_order(np.ones(4), np.zeros(4, dtype=int))
    np.testing.assert_array_equal(ties, np.arange(4))


@pytest.mark.parametrize("name", NAMES)
def test_grams_rounded_to_float32_work(name):
    """Sums of float32 products are not quite semidefinite; features far from zero show it most."""
    problem = simple(13, units=12, taps=3, rows=20, edit=lambda x: x + 30)
    old = problem.consumers[0]
    rounded = replace(old, gram=old.gram.astype(np.float32).astype(np.float64))
    assert np.linalg.eigvalsh(rounded.gram).min() < 0
    ranking = ranked(name, replace(problem, consumers=(rounded,)))
    assert np.all(np.isfinite(ranking.error))
    np.testing.assert_array_less(-ROUNDING, -np.diff(ranking.error))
    assert ranking.error[0] < 1.1


@pytest.mark.parametrize("name", ["snp", "l2"])
def test_what_is_unexplained_is_the_share_of_least_squares_residuals(name):
    """By the definition of D: what regression on the channels before leaves of each channel."""
    channels = np.arange(5)
    rng = np.random.default_rng(3)
    layers, samples = zip(*(layer(rng, channels, outputs=3, name=n) for n in "ab"), strict=True)
    problem = group(*layers, channels=channels)
    order = ranked(name, problem).order
    # both consumers' samples, each weighted so that its channels' second moments sum to one
    columns = np.vstack([d.x[:, :-1] / np.sqrt((d.x[:, :-1] ** 2).sum()) for d in samples])
    columns = columns[:, order]
    residuals = []
    for unit in range(5):
        before = columns[:, :unit]
        fit = np.linalg.lstsq(before, columns[:, unit], rcond=None)[0] if unit else np.zeros(0)
        residuals.append(float(np.sum((columns[:, unit] - before @ fit) ** 2)))
    expected = [sum(residuals[count:]) / sum(residuals) for count in range(6)]
    assert behind(pivots(problem, order)) == pytest.approx(expected, abs=1e-7)


@given(seed=st.integers(0, 1000), units=st.integers(1, 8), taps=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_what_is_unexplained_falls_from_one_to_nothing(seed, units, taps):
    problem = simple(seed, units, taps)
    curve = behind(pivots(problem, np.random.default_rng(seed).permutation(units)))
    assert curve.shape == (units + 1,)
    assert curve[0] == pytest.approx(1.0)
    assert curve[-1] == 0.0
    assert np.all(np.diff(curve) <= 0)


def test_copies_and_silent_channels_explain_nothing_more():
    def edit(x: np.ndarray) -> np.ndarray:
        x[:, 3] = x[:, 0]
        x[:, 4] = 0.0
        return x

    channels = np.arange(5)
    problem, _ = layer(np.random.default_rng(0), channels, edit=edit)
    curve = behind(pivots(group(problem, channels=channels), channels))
    assert curve[2] > 1e-3
    assert curve[3] < 1e-8
    unread = replace(group(problem, channels=channels), consumers=())
    assert not behind(pivots(unread, channels)).any()


def test_features_that_outnumber_the_rows_explain_each_other_no_more_than_they_do():
    """From 40 rows of 60 independent channels a quarter is not dispensable."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal((40, 60)), np.ones(40)])
    gram = x.T @ x / len(x)
    weight = rng.standard_normal((5, 61))
    channels = np.arange(60)
    thin = LayerProblem("thin", weight, gram, gram, channels, 1, 40)
    sure = replace(thin, rows=EXACT)
    few, believed = (
        Obs().rank(group(layer, channels=channels)).error[45] for layer in (thin, sure)
    )
    assert believed < 1e-3  # 40 rows lie in the span of any 40 channels
    assert 0.05 < few < 0.3  # truly a quarter of the variance


@pytest.mark.parametrize("rows", [50, 500, 5000])
def test_chance_correlations_are_shrunk_and_real_ones_are_not(rows):
    x = np.random.default_rng(rows).standard_normal((rows, 30))
    chance = np.corrcoef(x.T)
    left = shrunk(chance, rows)
    np.testing.assert_array_equal(np.diag(left), np.diag(chance))
    apart = ~np.eye(30, dtype=bool)
    assert np.linalg.norm(left[apart]) < 0.2 * np.linalg.norm(chance[apart])
    real = np.corrcoef((x + 3 * x[:, :1]).T)
    np.testing.assert_allclose(shrunk(real, rows), real, atol=3 / rows)
    np.testing.assert_array_equal(shrunk(np.eye(3), rows), np.eye(3))
