"""Gram matrices: standardising, ridges, triangular factors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import linalg

# float64 eps 2.2e-16 times sizes of tens and condition numbers below 1e4
EXACT = 1e-10


def samples(seed: int, rows: int = 200, features: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, features)) @ rng.standard_normal((features, features))
    return np.column_stack([mixed + rng.standard_normal(features), np.ones(rows)])


def gram_of(x: np.ndarray) -> np.ndarray:
    return x.T @ x / len(x)


def test_standardise_is_the_correlation_of_the_samples():
    x = samples(0)
    moments = linalg.standardise(gram_of(x))
    np.testing.assert_allclose(moments.correlation, np.corrcoef(x[:, :-1].T), atol=EXACT)
    np.testing.assert_allclose(moments.mean, x[:, :-1].mean(axis=0), atol=EXACT)
    np.testing.assert_allclose(moments.scale, x[:, :-1].std(axis=0), rtol=EXACT)


def test_standardise_accepts_sums_instead_of_means():
    x = samples(1)
    mean, total = linalg.standardise(gram_of(x)), linalg.standardise(x.T @ x)
    np.testing.assert_allclose(mean.correlation, total.correlation, atol=EXACT)
    np.testing.assert_allclose(mean.scale, total.scale, rtol=EXACT)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_feature_is_dead(value):
    x = samples(2)
    x[:, 3] = value
    moments = linalg.standardise(gram_of(x))
    assert moments.scale[3] == 0
    assert moments.inverse_scale[3] == 0
    np.testing.assert_array_equal(moments.correlation[3], np.eye(7)[3])


def test_factor_adds_ridge_only_where_it_is_needed():
    x = samples(3)
    good = linalg.standardise(gram_of(x)).correlation
    lower = linalg.factor(good, 0.0)
    np.testing.assert_allclose(lower @ lower.T, good, atol=EXACT)
    singular = np.ones((4, 4))
    lower = linalg.factor(singular, 0.0)
    np.testing.assert_allclose(lower @ lower.T, singular, atol=1e-7)


def test_factor_takes_noise_for_a_gram():
    """One row in float32 leaves no variance, only rounding: no sign is sure."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 40)) * 20
    noise += noise.T
    np.fill_diagonal(noise, 1.0)
    lower = linalg.factor(noise, 0.0)
    ridge = (lower @ lower.T - noise)[0, 0]
    np.testing.assert_allclose(lower @ lower.T, noise + ridge * np.eye(40), atol=1e-8 * ridge)


def test_a_constant_is_dead_in_spite_of_rounding(rng):
    """Sums of float32 products of a constant are not quite those of its mean."""
    x = np.column_stack([np.full(4000, 0.37), rng.standard_normal(4000), np.ones(4000)])
    gram = np.zeros((3, 3))
    for rows in np.split(x.astype(np.float32), 4):
        gram += rows.T @ rows
    moments = linalg.standardise(gram)
    assert moments.scale[0] == 0
    assert moments.scale[1] == pytest.approx(1.0, rel=0.05)
    assert moments.correlation[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("size", [0, 1, 5])
def test_inverse_and_solve_right_are_inverses(size):
    rng = np.random.default_rng(size)
    root = rng.standard_normal((size, size))
    matrix = root @ root.T + np.eye(size)
    right = rng.standard_normal((3, size))
    lower = linalg.factor(matrix, 0.0)
    inverse = linalg.inverse_of(lower)
    np.testing.assert_allclose(inverse @ matrix, np.eye(size), atol=EXACT)
    np.testing.assert_allclose(linalg.solve_right(lower, right), right @ inverse, atol=EXACT)


def test_condition_on_is_the_residual_of_least_squares():
    x = samples(4)[:, :-1]
    given_, wanted = np.array([1, 4]), np.array([0, 2, 6])
    fit, *_ = np.linalg.lstsq(x[:, given_], x[:, wanted], rcond=None)
    rest = x[:, wanted] - x[:, given_] @ fit
    own = linalg.condition_on(gram_of(x), given_, wanted)
    np.testing.assert_allclose(own, rest.T @ rest / len(x), atol=EXACT)
    none = linalg.condition_on(gram_of(x), given_[:0], wanted)
    np.testing.assert_array_equal(none, gram_of(x)[np.ix_(wanted, wanted)])


def test_fitted_weight_is_least_squares_on_given_targets():
    x = samples(5)
    rng = np.random.default_rng(5)
    y = rng.standard_normal((len(x), 3)) + x[:, :3] ** 2
    weight = rng.standard_normal((3, x.shape[1]))
    gram, cross = gram_of(x), y.T @ x / len(x)
    fit, *_ = np.linalg.lstsq(x, y, rcond=None)
    fitted = linalg.fitted_weight(weight, gram, cross, linalg.standardise(gram), 0.0)
    np.testing.assert_allclose(fitted, fit.T[:, :-1], atol=1e-9)
    same = linalg.fitted_weight(weight, gram, None, linalg.standardise(gram), 0.0)
    np.testing.assert_array_equal(same, weight[:, :-1])


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pivoted_ldl_spectrum_is_conditional_variance(units, rows, seed):
    x = np.random.default_rng(seed).standard_normal((rows, units))
    matrix = gram_of(x)
    order, pivots = linalg.pivoted_ldl(matrix, np.zeros(units, dtype=np.int64))
    assert sorted(order) == list(range(units))
    assert np.all(pivots >= 0)
    assert np.all(np.diff(pivots) <= EXACT)
    for step, unit in enumerate(order[: min(units, rows)]):
        before = order[:step]
        fit, *_ = np.linalg.lstsq(x[:, before], x[:, unit], rcond=None)
        rest = x[:, unit] - x[:, before] @ fit
        np.testing.assert_allclose(pivots[step], rest @ rest / rows, atol=1e-8)
        others = np.setdiff1d(order[step:], [unit])
        fit, *_ = np.linalg.lstsq(x[:, before], x[:, others], rcond=None)
        left = np.sum((x[:, others] - x[:, before] @ fit) ** 2, axis=0) / rows
        assert np.all(left <= pivots[step] + 1e-8)


def test_pivoted_ldl_ranks_dependent_units_last_and_keeps_parts_level():
    x = samples(6)[:, :-1]
    x[:, 5] = x[:, 1]
    order, pivots = linalg.pivoted_ldl(gram_of(x), np.zeros(7, dtype=np.int64))
    assert order[-1] == 5
    assert pivots[-1] == 0
    parts = np.array([0, 0, 1, 1, 2, 2])
    order, _ = linalg.pivoted_ldl(gram_of(x[:, :6]), parts)
    assert sorted(parts[order[:3]]) == [0, 1, 2]
