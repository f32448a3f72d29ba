"""Recovery: least squares on what is left, never worse held out than the simple answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.layer_problem import LayerProblem, Targets
from onnxprune.least_squares import LeastSquares
from onnxprune.linalg import pivoted_ldl
from onnxprune.methods import RECOVERIES
from onnxprune.normal_equations import features_of, pooled
from onnxprune.recovery import NoRecovery, Solution, channel_mix

# relative squared error: the smallest ridge squared, over a condition number below 1e6
LOSSLESS = 1e-12
# least squares with a ridge of 1e-10 against least squares on the samples
EXACT = 1e-6


def gram_of(x: np.ndarray) -> np.ndarray:
    return x.T @ x / len(x)


def samples(
    rng: np.random.Generator, entries: int, taps: int, rows: int, redundant: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two draws of x (rows, features + 1); the last ``redundant`` entries depend on the others."""
    width, free = entries * taps, (entries - redundant) * taps
    mix = rng.standard_normal((free, width))
    mix[:, :free] += 2 * np.eye(free)
    shift = rng.standard_normal(width)
    both = []
    for _ in range(2):
        source = np.maximum(rng.standard_normal((rows, free)) @ mix[:, :free] + shift[:free], -1)
        x = np.column_stack([source, source @ mix[:, free:] + shift[free:], np.ones(rows)])
        both.append(x)
    return both[0], both[1]


def problem_of(
    seed: int = 0, entries: int = 6, taps: int = 2, rows: int = 400, redundant: int = 0
) -> tuple[LayerProblem, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, held_out = samples(rng, entries, taps, rows, redundant)
    weight = rng.standard_normal((4, entries * taps + 1))
    problem = LayerProblem(
        name="consumer",
        weight=weight,
        gram=gram_of(x),
        tune_gram=gram_of(held_out),
        channels=np.arange(entries),
        taps=taps,
        rows=rows,
    )
    return problem, x, held_out


def measured(problem: LayerProblem, x: np.ndarray, keep: np.ndarray, found: Solution) -> float:
    """The relative error on samples; absolute where the targets are constant."""
    y = x @ problem.weight.T
    got = x[:, features_of(keep, problem.taps)] @ found.weight.T + found.bias
    variance = np.sum(y.var(axis=0))
    return float(np.sum((y - got) ** 2) / len(y) / (variance if variance > 1e-12 else 1.0))


def simple_answers(problem: LayerProblem, x: np.ndarray, keep: np.ndarray) -> list[Solution]:
    """The slice and the channel mix with the bias that is best on the samples x."""
    answers = []
    for weight in (
        problem.weight[:, features_of(keep, problem.taps)],
        channel_mix(problem, keep),
    ):
        rest = x @ problem.weight.T - x[:, features_of(keep, problem.taps)] @ weight.T
        answers.append(Solution(weight, rest.mean(axis=0), 0.0, 0.0, ""))
    return answers


@pytest.mark.parametrize("name", list(RECOVERIES))
@pytest.mark.parametrize("taps", [1, 3])
def test_keeping_everything_is_the_identity(name, taps):
    problem, _, _ = problem_of(taps=taps)
    found = RECOVERIES[name].solve(problem, np.arange(6))
    np.testing.assert_array_equal(found.weight, problem.weight[:, :-1])
    np.testing.assert_array_equal(found.bias, problem.weight[:, -1])
    assert found.error == found.tune_error == 0


@pytest.mark.parametrize("name", list(RECOVERIES))
@given(
    entries=st.integers(1, 6),
    taps=st.integers(1, 3),
    rows=st.integers(1, 60),
    kept=st.integers(0, 6),
    padded=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_errors_are_those_on_the_samples(name, entries, taps, rows, kept, padded, seed):
    """Few rows give rank-deficient Grams; the inputs stay as they are."""
    problem, x, held_out = problem_of(seed, entries, taps, rows + 1)
    problem = replace(problem, zero_padded=padded)
    keep = np.sort(np.random.default_rng(seed).permutation(entries)[:kept])
    before = [problem.weight.copy(), problem.gram.copy(), problem.tune_gram.copy()]
    found = RECOVERIES[name].solve(problem, keep)
    assert found.weight.shape == (4, len(keep) * taps)
    assert found.bias.shape == (4,)
    assert found.label
    want = measured(problem, x, keep, found)
    np.testing.assert_allclose(found.error, want, rtol=1e-4, atol=1e-8)
    want = measured(problem, held_out, keep, found)
    np.testing.assert_allclose(found.tune_error, want, rtol=1e-4, atol=1e-8)
    for old, new in zip(before, (problem.weight, problem.gram, problem.tune_gram), strict=True):
        np.testing.assert_array_equal(old, new)


@given(
    entries=st.integers(2, 6),
    taps=st.integers(1, 3),
    rows=st.integers(3, 60),
    kept=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_never_worse_held_out_than_slice_and_mix(entries, taps, rows, kept, seed):
    problem, x, held_out = problem_of(seed, entries, taps, rows)
    keep = np.arange(min(kept, entries - 1))
    found = LeastSquares().solve(problem, keep)
    for answer in simple_answers(problem, x, keep):
        assert found.tune_error <= measured(problem, held_out, keep, answer) * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("taps", [1, 3])
def test_many_rows_give_least_squares(taps):
    problem, x, _ = problem_of(1, taps=taps, rows=3000)
    problem = replace(problem, tune_gram=problem.gram)
    keep = np.array([0, 2, 3])
    columns = np.append(features_of(keep, taps), x.shape[1] - 1)
    fit, *_ = np.linalg.lstsq(x[:, columns], x @ problem.weight.T, rcond=None)
    found = LeastSquares().solve(problem, keep)
    np.testing.assert_allclose(found.weight, fit[:-1].T, atol=EXACT)
    np.testing.assert_allclose(found.bias, fit[-1], atol=EXACT)


@pytest.mark.parametrize("tune_rows", [0, 400])
@pytest.mark.parametrize("taps", [1, 2])
def test_exact_redundancy_is_lossless(taps, tune_rows):
    problem, _, held_out = problem_of(2, entries=7, taps=taps, redundant=3)
    problem = replace(problem, tune_rows=tune_rows)
    keep = np.arange(4)
    found = LeastSquares().solve(problem, keep)
    assert found.error < LOSSLESS
    assert measured(problem, held_out, keep, found) < LOSSLESS
    assert NoRecovery().solve(problem, keep).error > 0.01


def test_given_targets_are_followed():
    """With targets, the solution is the regression of the targets, not of W x."""
    problem, x, _ = problem_of(3, rows=3000)
    rng = np.random.default_rng(3)
    y = x @ problem.weight.T + x @ rng.standard_normal((x.shape[1], 4))
    y += 0.1 * rng.standard_normal(y.shape)
    given = Targets(y.T @ x / len(x), float(np.mean(np.sum(y**2, axis=1))))
    problem = replace(problem, targets=given, tune_targets=given, tune_gram=problem.gram)
    for keep in (np.array([0, 1, 4]), np.arange(6)):
        columns = np.append(features_of(keep, 2), x.shape[1] - 1)
        fit, *_ = np.linalg.lstsq(x[:, columns], y, rcond=None)
        found = LeastSquares().solve(problem, keep)
        got = x[:, columns] @ np.column_stack([found.weight, found.bias]).T
        best = np.sum((y - x[:, columns] @ fit) ** 2)
        assert np.sum((y - got) ** 2) <= best * (1 + 1e-6)
        np.testing.assert_allclose(found.error, np.sum((y - got) ** 2) / len(x) / y.var(0).sum())


def test_few_rows_choose_a_ridge_that_generalises():
    """More features than rows: plain least squares would fit noise."""
    problem, _, held_out = problem_of(4, entries=12, taps=3, rows=20)
    keep = np.arange(8)
    found = LeastSquares().solve(problem, keep)
    plain = LeastSquares(ridges=(1e-10,), first=0).solve(problem, keep)
    assert found.tune_error <= plain.tune_error
    assert measured(problem, held_out, keep, found) < 1


def both_draws(seed: int, rows: int, tune_rows: int) -> tuple[LayerProblem, np.ndarray, np.ndarray]:
    """A problem whose rows to tune on may be fitted on, these rows, and all rows."""
    problem, x, held_out = problem_of(seed, rows=max(rows, tune_rows))
    x, held_out = x[:rows], held_out[:tune_rows]
    grams = {"gram": gram_of(x), "tune_gram": gram_of(held_out)}
    problem = replace(problem, **grams, rows=rows, tune_rows=tune_rows)
    return problem, x, np.concatenate([x, held_out])


def targets_on(x: np.ndarray, y: np.ndarray) -> Targets:
    return Targets(y.T @ x / len(x), float(np.mean(np.sum(y**2, axis=1))))


@pytest.mark.parametrize("given", [False, True])
def test_pooling_is_the_problem_of_all_rows(given):
    problem, x, every = both_draws(11, 300, 100)
    y = every @ np.random.default_rng(11).standard_normal((every.shape[1], 4))
    if given:
        fit, tune = targets_on(x, y[: len(x)]), targets_on(every[len(x) :], y[len(x) :])
        problem = replace(problem, targets=fit, tune_targets=tune)
    found = pooled(problem)
    assert found.rows == 400
    np.testing.assert_allclose(found.gram, gram_of(every), rtol=1e-12)
    if given:
        assert found.targets is not None
        np.testing.assert_allclose(found.targets.cross, targets_on(every, y).cross, rtol=1e-10)
        assert found.targets.second == pytest.approx(targets_on(every, y).second)
    else:
        assert found.targets is None


def ridge_towards(
    prior: np.ndarray, ridge: float, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with the ridge as more rows: weights, shape (outputs, features), and bias."""
    centred, rest = x - x.mean(axis=0), y - x @ prior.T
    penalty = np.sqrt(ridge * len(x)) * np.diag(x.std(axis=0))
    rows = np.vstack([centred, penalty])
    wanted = np.vstack([rest - rest.mean(axis=0), np.zeros((len(penalty), y.shape[1]))])
    weight = prior + np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    return weight, (y - x @ weight.T).mean(axis=0)


PRIORS = [("slice", 12, 4), ("channel mix", 13, 4)]


@pytest.mark.parametrize(("prior", "seed", "kept"), PRIORS)
@pytest.mark.parametrize("pool", [True, False])
def test_what_was_chosen_is_fitted_on_all_rows(prior, seed, kept, pool):
    """Prior and ridge are chosen on one half; with no rows given there, that half stays unseen."""
    problem, x, every = both_draws(seed, 60, 40)
    problem = replace(problem, tune_rows=40 if pool else 0)
    keep = np.arange(kept)
    features = features_of(keep, problem.taps)
    search = LeastSquares(ridges=(1e-2,), first=0)
    found, unpooled = (search.solve(p, keep) for p in (problem, replace(problem, tune_rows=0)))
    assert found.label == f"least squares, ridge 1e-02 towards {prior}"
    assert (found.label, found.tune_error) == (unpooled.label, unpooled.tune_error)
    towards = problem.weight[:, features] if prior == "slice" else channel_mix(problem, keep)

    def oracle(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ridge_towards(towards, 1e-2, rows[:, features], rows @ problem.weight.T)

    right, wrong = (every, x) if pool else (x, every)
    np.testing.assert_allclose(found.weight, oracle(right)[0], atol=1e-6)
    np.testing.assert_allclose(found.bias, oracle(right)[1], atol=1e-6)
    assert np.abs(found.weight - oracle(wrong)[0]).max() > 1e-3


@pytest.mark.parametrize("good", ["one-shot", "slice"])
def test_the_better_of_two_starts_is_followed(good):
    """In a refit in order, where all entries are kept and targets are given."""
    problem, _, _ = problem_of(12)
    right, noise = problem.weight, np.random.default_rng(0).standard_normal(problem.weight.shape)
    start, alternative = (right, right + noise) if good == "one-shot" else (right + noise, right)
    fit, tune = (
        Targets(right @ gram, float(np.sum(right @ gram * right)))
        for gram in (problem.gram, problem.tune_gram)
    )
    problem = replace(
        problem, weight=start, alternative=alternative, targets=fit, tune_targets=tune
    )
    found = LeastSquares(ridges=(1e1,), first=0).solve(problem, np.arange(len(problem.channels)))
    assert found.label.endswith(good)
    np.testing.assert_allclose(found.weight, right[:, :-1], atol=1e-6)
    alone = LeastSquares(ridges=(1e1,), first=0).solve(
        replace(problem, weight=right + noise, alternative=None), np.arange(len(problem.channels))
    )
    assert np.abs(alone.weight - right[:, :-1]).max() > 0.1


def test_weights_without_a_ridge_get_the_bias_of_all_rows():
    """Too few rows to fit: a simple answer is chosen, and its bias is the best on all of them."""
    problem, _, every = both_draws(14, 3, 40)
    keep = np.array([0, 1, 4])
    found = LeastSquares(ridges=(1e-10,), first=0).solve(problem, keep)
    assert found.label in ("slice", "channel mix")
    rest = every @ problem.weight.T - every[:, features_of(keep, 2)] @ found.weight.T
    np.testing.assert_allclose(found.bias, rest.mean(axis=0), atol=1e-9)


def test_channel_mix_is_the_triangular_recovery():
    """W_K + W_D C_DK C_KK^-1 = (W L)[:, :k] (L^-1)[:k, :k], arXiv 2405.17506."""
    problem, _, _ = problem_of(5, taps=1)
    problem = replace(problem, zero_padded=True)
    second = problem.gram[:-1, :-1]
    order, _ = pivoted_ldl(second, np.zeros(6, dtype=np.int64))
    lower = np.linalg.cholesky(second[np.ix_(order, order)])
    lower /= np.diag(lower)
    for kept in (1, 3, 5):
        weight = problem.weight[:, :-1][:, order]
        want = (weight @ lower)[:, :kept] @ np.linalg.inv(lower)[:kept, :kept]
        got = channel_mix(problem, np.sort(order[:kept]))
        sorted_want = want[:, np.argsort(order[:kept])]
        np.testing.assert_allclose(got, sorted_want, rtol=1e-3, atol=1e-3)


def test_channel_mix_uses_one_combination_at_every_tap():
    """Patches of one image read the same channels at every tap: the mix recovers a copy exactly."""
    rng = np.random.default_rng(6)
    image = rng.standard_normal((500, 3, 4))
    image[:, 2] = 0.5 * image[:, 0] - image[:, 1] + 3.0
    x = np.column_stack([image.reshape(500, -1), np.ones(500)])
    weight = rng.standard_normal((2, 13))
    gram = gram_of(x)
    problem = LayerProblem("c", weight, gram, gram, np.arange(3), 4, 500)
    tensor = weight[:, :-1].reshape(2, 3, 4)
    want = tensor[:, :2] + tensor[:, 2:] * np.array([0.5, -1.0])[:, None]
    got = channel_mix(problem, np.array([0, 1]))
    np.testing.assert_allclose(got, want.reshape(2, -1), atol=1e-4)
    found = LeastSquares().solve(problem, np.array([0, 1]))
    np.testing.assert_allclose(found.bias, weight[:, -1] + 3.0 * tensor[:, 2].sum(-1), atol=1e-4)


def test_zero_padded_mix_keeps_zero_at_zero():
    """The mix is uncentred: no constant stands in for a dropped channel."""
    problem, _, _ = problem_of(7, entries=4, taps=1)
    affine = channel_mix(problem, np.array([0, 1]))
    linear = channel_mix(replace(problem, zero_padded=True), np.array([0, 1]))
    second = problem.gram[:-1, :-1]
    mix = second[2:, :2] @ np.linalg.inv(second[:2, :2])
    want = problem.weight[:, :2] + problem.weight[:, 2:4] @ mix
    np.testing.assert_allclose(linear, want, rtol=1e-3, atol=1e-3)
    assert not np.allclose(affine, linear, atol=1e-2)


def test_dead_and_duplicate_kept_channels_are_harmless():
    problem, x, _ = problem_of(8)
    x = x.copy()
    x[:, 0:2] = 0.0
    x[:, 4:6] = x[:, 2:4]
    problem = replace(problem, gram=gram_of(x), tune_gram=gram_of(x))
    found = LeastSquares().solve(problem, np.arange(4))
    assert np.all(np.isfinite(found.weight))
    np.testing.assert_allclose(measured(problem, x, np.arange(4), found), found.error, atol=1e-9)


def test_scaling_the_data_scales_the_weights():
    problem, _, _ = problem_of(9)
    keep = np.array([1, 2, 5])
    want = LeastSquares().solve(problem, keep)
    factor = np.append(np.full(12, 1e-4), 1.0)
    scale = np.outer(factor, factor)
    weight = problem.weight / factor
    scaled = replace(
        problem, weight=weight, gram=problem.gram * scale, tune_gram=problem.tune_gram * scale
    )
    got = LeastSquares().solve(scaled, keep)
    np.testing.assert_allclose(got.weight * 1e-4, want.weight, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got.bias, want.bias, rtol=1e-5, atol=1e-7)


def test_a_gram_rounded_to_float32_works():
    """Not quite semidefinite: ridges too small for a factorisation are passed over."""
    problem, x, held_out = problem_of(10, entries=12, taps=3, rows=20)
    x, held_out = x + 30, held_out + 30
    x[:, -1] = held_out[:, -1] = 1
    rounded = gram_of(x).astype(np.float32).astype(np.float64)
    assert np.linalg.eigvalsh(rounded).min() < 0
    problem = replace(problem, gram=rounded, tune_gram=gram_of(held_out))
    found = LeastSquares().solve(problem, np.arange(9))
    assert found.tune_error < 1
    np.testing.assert_allclose(
        measured(problem, held_out, np.arange(9), found), found.tune_error, rtol=1e-4
    )
