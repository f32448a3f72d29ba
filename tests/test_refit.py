"""Refitting touches exactly the consumers that lose inputs."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import Studied, convolutions, perceptron, studied

from onnxprune.recovery import FixedRidge, NoRecovery, Solution
from onnxprune.refit import padded, refit


@pytest.fixture(scope="module")
def known() -> Studied:
    """Conv 3 -> 8, grouped Conv 8 -> 6 in two parts, Conv 6 -> 4: two groups."""
    middle = "r = Relu(c) g = Conv <pads=[1,1,1,1], group=2> (r, w3, b3) h = Relu(g)"
    return studied(convolutions(middle, w3=(6, 4, 3, 3), b3=(6,), w2=(4, 6, 3, 3)))


def refitted(known: Studied, keeps: dict[str, np.ndarray], recovery=NoRecovery()):  # noqa: B008
    alive = known.study.survivors(keeps)
    prior = refit(known.study.views, known.study.layers, alive, recovery)
    return prior.weights, prior.solutions, alive


def test_nothing_cut_is_nothing_solved(known):
    weights, solutions, _ = refitted(known, {})
    assert (weights.arrays, solutions) == ({}, {})


def test_only_what_loses_inputs_is_solved(known):
    inner, outer = known.study.groups
    weights, _, _ = refitted(known, {inner.name: np.array([0, 3, 4, 6])})
    assert set(weights.arrays) == set(inner.consumers)
    weights, _, _ = refitted(known, {outer.name: np.array([0, 1, 4, 5])})
    assert set(weights.arrays) == set(outer.consumers)


def test_without_recovery_weights_are_sliced_per_part(known):
    inner = known.study.groups[0]
    weights, solutions, _ = refitted(known, {inner.name: np.array([0, 3, 4, 6])})
    (name,) = inner.consumers
    original = known.network.consumers[name].weight.values
    weight, bias = weights.arrays[name]
    np.testing.assert_array_equal(weight[:3], original[:3][:, [0, 3]])
    np.testing.assert_array_equal(weight[3:], original[3:][:, [0, 2]])
    np.testing.assert_array_equal(bias, known.network.consumers[name].bias.values)
    assert len(solutions[name]) == 2  # one for every part
    assert all(isinstance(solution, Solution) for solution in solutions[name])


def test_padding_puts_zeros_where_inputs_are_cut(known):
    inner = known.study.groups[0]
    weights, _, alive = refitted(known, {inner.name: np.array([0, 3, 4, 6])})
    ((name, (full, bias)),) = padded(known.study.views, weights, alive).items()
    original = known.network.consumers[name].weight.values
    assert full.shape == original.shape
    np.testing.assert_array_equal(full[:3, [0, 3]], original[:3][:, [0, 3]])
    np.testing.assert_array_equal(full[3:, [0, 2]], original[3:][:, [0, 2]])
    assert not full[:3, [1, 2]].any()
    assert not full[3:, [1, 3]].any()
    np.testing.assert_array_equal(bias, weights.arrays[name][1])


def test_weights_keep_the_models_type():
    known = studied(perceptron())
    (group,) = known.study.groups
    weights, _, _ = refitted(known, {group.name: np.array([1, 2, 5])}, FixedRidge())
    weight, bias = weights.arrays[group.consumers[0]]
    assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
    assert (weight.shape, bias.shape) == ((3, 5), (5,))


def test_recovered_weights_are_nearer_than_sliced_ones(known):
    """On the rows they were fitted on, as the problems' Grams measure them."""
    inner = known.study.groups[0]
    keeps = {inner.name: np.array([0, 1, 4, 5])}
    (name,) = inner.consumers
    errors = []
    for recovery in (NoRecovery(), known.study.recovery):
        _, solutions, _ = refitted(known, keeps, recovery)
        errors.append([solution.error for solution in solutions[name]])
    assert all(better < worse for worse, better in zip(*errors, strict=True))
