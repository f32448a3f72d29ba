"""The quick recovery of trials: plain least squares with one ridge towards the slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_recovery import problem_of

from onnxprune import least_squares
from onnxprune.layer_problem import Targets
from onnxprune.least_squares import LeastSquares
from onnxprune.normal_equations import features_of
from onnxprune.recovery import BiasOnly, FixedRidge

KEEP = np.array([0, 2, 3, 5])


def direct(problem, keep, ridge):
    """P0 + (H_K - P0 C_KK) (C_KK + ridge diag C_KK)^-1 from the definition, C and H centred."""
    features = features_of(keep, problem.taps)
    mean = problem.gram[:-1, -1]
    covariance = problem.gram[:-1, :-1] - np.outer(mean, mean)
    own = covariance[np.ix_(features, features)]
    prior = problem.weight[:, features]
    targets = problem.weight[:, :-1] @ covariance[:, features]
    if problem.cross is not None:
        targets = problem.cross[:, features] - np.outer(problem.cross[:, -1], mean[features])
    system = own + ridge * np.diag(np.diag(own))
    weight = prior + np.linalg.solve(system, (targets - prior @ own).T).T
    goal = problem.weight @ problem.gram[:, -1] if problem.cross is None else problem.cross[:, -1]
    return weight, goal - weight @ mean[features]


@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("taps", [1, 3])
def test_it_is_least_squares_from_the_definition(taps, ridge):
    problem, _, _ = problem_of(taps=taps)
    found = FixedRidge(ridge).solve(problem, KEEP)
    weight, bias = direct(problem, KEEP, ridge)
    np.testing.assert_allclose(found.weight, weight, atol=1e-8)
    np.testing.assert_allclose(found.bias, bias, atol=1e-8)
    assert (found.error, found.tune_error) == (None, None)
    assert f"{ridge:.0e}" in found.label


def test_it_is_a_trial_of_the_full_recovery(monkeypatch):
    """Of the full recovery with this ridge only, and the slice in place of the channel mix."""

    def slices(problem, keep):
        return problem.weight[:, features_of(keep, problem.taps)]

    monkeypatch.setattr(least_squares, "channel_mix", slices)
    problem, _, _ = problem_of(taps=2)
    best = LeastSquares(ridges=(1e-3,), first=0).solve(problem, KEEP)
    quick = FixedRidge(1e-3).solve(problem, KEEP)
    assert best.label == "least squares, ridge 1e-03 towards slice"
    np.testing.assert_allclose(quick.weight, best.weight, atol=1e-10)
    np.testing.assert_allclose(quick.bias, best.bias, atol=1e-10)


def test_keeping_everything_changes_nothing():
    problem, _, _ = problem_of(taps=2)
    found = FixedRidge().solve(problem, np.arange(6))
    np.testing.assert_allclose(found.weight, problem.weight[:, :-1], atol=1e-12)
    np.testing.assert_allclose(found.bias, problem.weight[:, -1], atol=1e-10)


def test_keeping_nothing_leaves_the_mean():
    problem, x, _ = problem_of()
    found = FixedRidge().solve(problem, np.zeros(0, np.int64))
    assert found.weight.shape == (4, 0)
    np.testing.assert_allclose(found.bias, (x @ problem.weight.T).mean(axis=0), atol=1e-9)


def test_other_targets_than_its_own_output():
    problem, x, _ = problem_of(taps=2)
    targets = np.random.default_rng(5).standard_normal((4, x.shape[1]))
    problem = replace(problem, targets=Targets(targets @ problem.gram, 1.0))
    found = FixedRidge(1e-3).solve(problem, KEEP)
    weight, bias = direct(problem, KEEP, 1e-3)
    np.testing.assert_allclose(found.weight, weight, atol=1e-8)
    np.testing.assert_allclose(found.bias, bias, atol=1e-8)


@pytest.mark.parametrize("taps", [1, 3])
def test_the_bias_alone_takes_the_mean_of_what_is_cut(taps):
    problem, x, _ = problem_of(taps=taps)
    found = BiasOnly().solve(problem, KEEP)
    features = features_of(KEEP, taps)
    np.testing.assert_array_equal(found.weight, problem.weight[:, features])
    made = x[:, features] @ found.weight.T + found.bias
    np.testing.assert_allclose(made.mean(axis=0), (x @ problem.weight.T).mean(axis=0), atol=1e-9)
    assert (found.error, found.tune_error) == (None, None)
    whole = BiasOnly().solve(problem, np.arange(len(problem.channels)))
    np.testing.assert_allclose(whole.bias, problem.weight[:, -1], atol=1e-12)


def test_dead_and_repeated_channels_are_no_trouble():
    problem, x, _ = problem_of()
    x = x.copy()
    x[:, 2], x[:, 4] = 0.0, x[:, 6]
    problem = replace(problem, gram=x.T @ x / len(x))
    found = FixedRidge().solve(problem, KEEP)
    assert np.isfinite(found.weight).all()
    assert np.isfinite(found.bias).all()
