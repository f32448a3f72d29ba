"""Scores of queries and keys: what the places left of a head take over."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.criteria.reduction import error_curve
from onnxprune.layer_problem import GroupProblem
from onnxprune.least_squares import LeastSquares
from onnxprune.recovery import FixedRidge, NoRecovery
from onnxprune.scores import Moments, ScoreProblem, about_mean, about_zero, score_problems

WIDTH = 5
KEEP = np.array([0, 3])
EXACT = FixedRidge(1e-10)


def rows(rng: np.random.Generator, count: int, heads: int = 2) -> np.ndarray:
    """Correlated rows of unequal size with a mean, shape (heads, count, places)."""
    mixing = rng.standard_normal((heads, WIDTH, WIDTH))
    values = rng.standard_normal((heads, count, WIDTH)) @ mixing + rng.standard_normal(WIDTH)
    return values * np.array([1.0, 10.0, 0.1, 3.0, 1.0])


def moments(values: np.ndarray) -> np.ndarray:
    """E[x x^T] of every head, the constant last."""
    extended = np.concatenate([values, np.ones((*values.shape[:-1], 1))], axis=-1)
    return extended.swapaxes(1, 2) @ extended / values.shape[1]


def problems(queries: np.ndarray, keys: np.ndarray) -> list[ScoreProblem]:
    seen = Moments(moments(queries), moments(keys))
    exact = 10**15  # rows: these are all the samples there are
    return score_problems("scores", seen, seen, np.arange(WIDTH), exact)


def best(queries: np.ndarray, keys: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """A of the nearest scores q^T A k_S of a head, by least squares over all of its pairs."""
    keys = keys - keys.mean(axis=0)
    design = np.einsum("id,js->ijds", queries, keys[:, keep]).reshape(-1, WIDTH * keep.size)
    scores = (queries @ keys.T).reshape(-1)
    return np.linalg.lstsq(design, scores, rcond=None)[0].reshape(WIDTH, keep.size)


def test_the_mix_is_that_of_least_squares_over_all_pairs(rng: np.random.Generator) -> None:
    queries, keys = rows(rng, 40), rows(rng, 30)
    for head, problem in enumerate(problems(queries, keys)):
        mix = problem.mix(EXACT.solve(problem, KEEP).weight, KEEP)
        wanted = best(queries[head], keys[head], KEEP).T
        np.testing.assert_allclose(mix, wanted, rtol=1e-5, atol=1e-9)


def test_a_price_is_what_scores_lose_relative_to_all_heads(rng: np.random.Generator) -> None:
    queries, keys = rows(rng, 40), rows(rng, 30)
    keys[1] *= 0.01  # a head whose scores hardly differ counts for little
    group = GroupProblem(
        "width", np.arange(WIDTH), np.zeros(WIDTH, int), tuple(problems(queries, keys))
    )
    order = np.array([3, 0, 1, 4, 2])
    error = error_curve(group, order, damping=1e-10)
    centred = keys - keys.mean(axis=1, keepdims=True)
    total = sum(np.square(q @ k.T).mean() for q, k in zip(queries, centred, strict=True))
    for count in range(1, WIDTH + 1):
        keep = order[:count]
        lost = sum(
            np.square(q @ (k - k[:, keep] @ best(q, k, keep).T).T).mean()
            for q, k in zip(queries, centred, strict=True)
        )
        assert error[count] == pytest.approx(lost / total, rel=1e-4, abs=1e-7)
    assert error[0] == pytest.approx(1, rel=1e-6)


def test_keys_of_low_rank_lose_nothing(rng: np.random.Generator) -> None:
    keys = rng.standard_normal((1, 30, 2)) @ rng.standard_normal((2, WIDTH)) + 1.0
    queries = rows(rng, 40, heads=1)
    (problem,) = problems(queries, keys)
    mix = problem.mix(LeastSquares().solve(problem, KEEP).weight, KEEP)
    centred = keys[0] - keys[0].mean(axis=0)
    scores, recovered = queries[0] @ centred.T, (queries[0] @ mix.T) @ centred[:, KEEP].T
    np.testing.assert_allclose(recovered, scores, atol=1e-5 * np.abs(scores).max())


def test_without_recovery_the_kept_places_stay_as_they_are(rng: np.random.Generator) -> None:
    for problem in problems(rows(rng, 40), rows(rng, 30)):
        mix = problem.mix(NoRecovery().solve(problem, KEEP).weight, KEEP)
        np.testing.assert_array_equal(mix, np.eye(WIDTH)[KEEP])


def test_places_in_which_queries_are_silent(rng: np.random.Generator) -> None:
    """They cost nothing, and one that is kept can still say what another said."""
    queries, keys = rows(rng, 40, heads=1), rows(rng, 30, heads=1)
    queries[..., [0, 2]] = 0
    keys[..., 3] = 2 * keys[..., 2]
    (problem,) = problems(queries, keys)
    group = GroupProblem("width", np.arange(WIDTH), np.zeros(WIDTH, int), (problem,))
    assert error_curve(group, np.array([1, 3, 4, 0, 2]))[3] == pytest.approx(0, abs=1e-9)
    keep = np.array([1, 2, 4])
    mix = problem.mix(EXACT.solve(problem, keep).weight, keep)
    keys -= keys.mean(axis=1, keepdims=True)
    scores = queries[0] @ keys[0].T
    recovered = queries[0] @ mix.T @ keys[0][:, keep].T
    np.testing.assert_allclose(recovered, scores, atol=1e-4 * np.abs(scores).max())


def test_queries_that_are_never_there() -> None:
    nothing = np.zeros((1, 10, WIDTH))
    (problem,) = problems(nothing, rows(np.random.default_rng(0), 10, heads=1))
    mix = problem.mix(EXACT.solve(problem, KEEP).weight, KEEP)
    assert np.isfinite(mix).all()


def test_moments_about_zero_and_about_the_mean(rng: np.random.Generator) -> None:
    values = rows(rng, 20)
    centred = moments(values - values.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(about_mean(moments(values)), centred, atol=1e-9)
    zero = about_zero(moments(values))
    np.testing.assert_array_equal(zero[:, :-1, :-1], moments(values)[:, :-1, :-1])
    np.testing.assert_array_equal(zero[:, -1], [[0] * WIDTH + [1]] * 2)
