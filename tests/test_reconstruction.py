"""Recoveries by channel: what kept channels explain moves to them, the same way at every tap."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.layer_problem import LayerProblem
from onnxprune.reconstruction import Reconstruction, channel_gram, mixed_in
from onnxprune.recovery import NoRecovery

ENTRIES, TAPS, ROWS = 5, 3, 400


def problem_of(values: np.ndarray, seed: int = 0) -> LayerProblem:
    """A consumer of samples of shape (rows, entries, taps)."""
    rows, entries, taps = values.shape
    x = np.column_stack([values.reshape(rows, -1), np.ones(rows)])
    gram = x.T @ x / rows
    weight = np.random.default_rng(seed).standard_normal((4, x.shape[1]))
    return LayerProblem("consumer", weight, gram, gram, np.arange(entries), taps, rows)


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    mixed = rng.standard_normal((ROWS, ENTRIES, TAPS)) + rng.standard_normal((ENTRIES, 1))
    return mixed + 0.5 * mixed[:, ::-1]


def test_the_channel_gram_is_that_of_all_taps_together(values: np.ndarray) -> None:
    rows = values.swapaxes(1, 2).reshape(-1, ENTRIES)
    np.testing.assert_allclose(channel_gram(problem_of(values)), rows.T @ rows / len(rows))


def test_moving_weights_computes_what_replacing_channels_does(
    values: np.ndarray, rng: np.random.Generator
) -> None:
    problem, keep, drop = problem_of(values), np.array([0, 2, 3]), np.array([1, 4])
    mix = rng.standard_normal((2, 3))
    replaced = values.copy()
    replaced[:, drop] = np.einsum("dk,nkt->ndt", mix, values[:, keep])
    want = replaced.reshape(ROWS, -1) @ problem.weight[:, :-1].T
    got = values[:, keep].reshape(ROWS, -1) @ mixed_in(problem, keep, mix).T
    np.testing.assert_allclose(got, want)


def test_a_reconstruction_is_ridge_regression_of_the_dropped_channels(values: np.ndarray) -> None:
    """Against the rows themselves, with the ridge as more rows."""
    problem, keep, drop = problem_of(values), np.array([0, 1, 4]), np.array([2, 3])
    rows = values.swapaxes(1, 2).reshape(-1, ENTRIES)
    kept, dropped = rows[:, keep], rows[:, drop]
    strength = 0.3 * (kept**2).mean() * len(rows)
    padded = np.vstack([kept, np.sqrt(strength) * np.eye(3)])
    mix, *_ = np.linalg.lstsq(padded, np.vstack([dropped, np.zeros((3, 2))]), rcond=None)
    found = Reconstruction(ridge=0.3).solve(problem, keep)
    np.testing.assert_allclose(found.weight, mixed_in(problem, keep, mix.T), rtol=1e-8)
    np.testing.assert_array_equal(found.bias, problem.weight[:, -1])


def test_a_copy_of_a_kept_channel_costs_nothing(values: np.ndarray) -> None:
    values[:, 4] = -2 * values[:, 1]
    problem, keep = problem_of(values), np.arange(4)
    assert NoRecovery().solve(problem, keep).error > 0.1
    assert Reconstruction(ridge=1e-10).solve(problem, keep).error < 1e-12


def test_what_is_never_active_reconstructs_nothing(values: np.ndarray) -> None:
    values[:, :2] = 0
    problem, keep = problem_of(values), np.arange(2)
    found = Reconstruction().solve(problem, keep)
    np.testing.assert_array_equal(found.weight, NoRecovery().solve(problem, keep).weight)
