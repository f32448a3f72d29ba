"""Merging: a dropped channel's weights go to the nearest kept one; means and variances stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reconstruction import problem_of

from onnxprune.merging import Merging, deviations, nearest
from onnxprune.recovery import NoRecovery


def outputs(values: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1) @ weight.T + bias


@given(entries=st.integers(2, 6), taps=st.integers(1, 3), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_every_output_keeps_its_mean_and_variance(entries: int, taps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.standard_normal((60, entries, taps)) + 0.3, 0)
    problem = problem_of(values, seed)
    keep = np.sort(rng.permutation(entries)[: rng.integers(1, entries)])
    found = Merging(largest=np.inf).solve(problem, keep)
    want = outputs(values, problem.weight[:, :-1], problem.weight[:, -1])
    got = outputs(values[:, keep], found.weight, found.bias)
    np.testing.assert_allclose(got.mean(axis=0), want.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(got.std(axis=0), want.std(axis=0), rtol=1e-6)


def test_copies_are_merged_without_loss(rng: np.random.Generator) -> None:
    values = rng.standard_normal((200, 6, 2)) + 0.5
    values[:, 3:] = values[:, [2, 0, 2]]
    problem = problem_of(values)
    found = Merging().solve(problem, np.arange(3))
    assert found.error < 1e-12
    assert NoRecovery().solve(problem, np.arange(3)).error > 0.1
    tensor = problem.weight[:, :-1].reshape(4, 6, 2)
    summed = tensor[:, [0, 1, 2]]
    summed[:, 0] += tensor[:, 4]
    summed[:, 2] += tensor[:, 3] + tensor[:, 5]
    np.testing.assert_allclose(found.weight, summed.reshape(4, -1), rtol=1e-6)


def test_the_nearest_is_that_of_the_samples(rng: np.random.Generator) -> None:
    x = rng.standard_normal((100, 30)) @ rng.standard_normal((30, 30))
    keep = np.array([1, 4, 6, 17, 20, 29])
    drop = np.setdiff1d(np.arange(30), keep)
    gaps = ((x[:, drop, None] - x[:, None, keep]) ** 2).mean(axis=0)
    mix = nearest(x.T @ x / 100, keep)
    np.testing.assert_array_equal(mix.argmax(axis=1), gaps.argmin(axis=1))
    np.testing.assert_array_equal(mix.sum(axis=1), 1)


def test_an_output_that_lost_its_variance_is_not_blown_up(rng: np.random.Generator) -> None:
    values = rng.standard_normal((200, 2, 1)) * np.array([1e-6, 1.0])[:, None]
    problem = problem_of(values)
    keep = np.array([0])
    summed = problem.weight[:, :-1].sum(axis=1, keepdims=True)
    found = Merging(largest=3.0).solve(problem, keep)
    np.testing.assert_allclose(found.weight, 3 * summed)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_deviations_are_those_of_the_samples(rng: np.random.Generator, shift: float) -> None:
    x = np.column_stack([rng.standard_normal((300, 4)) + shift, np.ones(300)])
    weight = rng.standard_normal((3, 4))
    want = (x[:, :-1] @ weight.T).std(axis=0)
    np.testing.assert_allclose(deviations(weight, x.T @ x / 300), want)
