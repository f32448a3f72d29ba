"""Targets that count where the activation does: which layers have them, and what that brings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_models import build
from oracles import Subject, random_keeps, scattered
from small_networks import behind_a_cut, in_order, one_shot, samples_for, studied

from onnxprune import Options
from onnxprune.canonical import canonicalise
from onnxprune.extract import exposed
from onnxprune.full_size import FullSize
from onnxprune.groups import find_groups
from onnxprune.layer_problem import LayerProblem
from onnxprune.least_squares import LeastSquares
from onnxprune.recovery import Solution
from onnxprune.rectified import Misses, missed
from onnxprune.runtime import Session
from onnxprune.stages import stages_of

PAD = "<pads=[1,1,1,1]>"
LINEAR, RECTIFIED = LeastSquares(sweeps=0), LeastSquares()


# --- what is missed -----------------------------------------------------------------------------


def test_what_the_activation_makes_constant_is_not_missed() -> None:
    target = np.array([2.0, 2.0, -1.0, -1.0, 7.0, 7.0, 0.0], np.float32)
    made = np.array([1.5, -3.0, -9.0, 0.5, 9.0, 5.0, -1.0], np.float32)
    np.testing.assert_array_equal(
        missed(target, made, (0.0, np.inf)), [0.5, 5.0, 0.0, -0.5, -2.0, 2.0, 0.0]
    )
    np.testing.assert_array_equal(
        missed(target, made, (0.0, 6.0)), [0.5, 5.0, 0.0, -0.5, 0.0, 1.0, 0.0]
    )
    everywhere = missed(target, made, (-np.inf, np.inf))
    np.testing.assert_array_equal(everywhere, target - made)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_less_is_missed_than_the_activation_differs_by_at_least_that(seed: int) -> None:
    """|clip(t) - clip(p)| <= |missed| <= |t - p|, so that fitting it bounds what matters."""
    rng = np.random.default_rng(seed)
    target, made = rng.normal(0, 4, (2, 50)).astype(np.float32)
    lacks = np.abs(missed(target, made, (0.0, 6.0)))
    differs = np.abs(np.clip(target, 0, 6) - np.clip(made, 0, 6))
    assert np.all(differs <= lacks + 1e-5)
    assert np.all(lacks <= np.abs(target - made) + 1e-5)


def problem_of(x: np.ndarray, y: np.ndarray) -> LayerProblem:
    """A consumer all of whose entries are kept."""
    full = np.column_stack([x, np.ones(len(x))])
    gram = full.T @ full / len(x)
    weight = np.linalg.lstsq(full, y, rcond=None)[0].T
    return LayerProblem("c", weight, gram, gram, np.arange(x.shape[1]), 1, len(x))


def loss(x: np.ndarray, t: np.ndarray, found: Solution) -> float:
    made = x @ found.weight.T + found.bias
    return float(np.sum(missed(t, made, (0.0, np.inf)) ** 2))


@pytest.mark.parametrize("stride", [1.0, 1.5, 1.9])
def test_every_step_misses_less_until_nothing_more_can_be_done(stride: float) -> None:
    """The problem is convex: steps go down, and end where the gradient vanishes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5))
    t = np.column_stack([np.sin(3 * x[:, 0]) + x[:, 1], x[:, 2] ** 2 - 1])
    problem, recovery = problem_of(x, t), LeastSquares(stride=stride)
    found = Solution(problem.weight[:, :-1], problem.weight[:, -1], None, None, "linear", 1e-10)
    stepping = recovery.stepping(problem, found)
    losses = [loss(x, t, found)]
    for _ in range(60):
        lacks = missed(t, x @ found.weight.T + found.bias, (0.0, np.inf))
        misses = Misses.of(x[None], lacks[None])
        found = stepping.after(found, misses.mean[0])
        losses.append(loss(x, t, found))
    assert np.all(np.diff(losses) <= 1e-9 * losses[0])
    assert losses[-1] < 0.9 * losses[0]
    assert np.abs(misses.mean).max() < 1e-3


def test_sums_of_two_halves_are_those_of_all() -> None:
    rng = np.random.default_rng(1)
    x, lacks = rng.standard_normal((2, 30, 4)), rng.standard_normal((2, 30, 3))
    whole, half = Misses.of(x, lacks), Misses.of(x[:, :10], lacks[:, :10])
    half.add(Misses.of(x[:, 10:], lacks[:, 10:]))
    np.testing.assert_allclose(half.mean, whole.mean)
    np.testing.assert_allclose(whole.mean[:, :, -1], lacks.mean(axis=1))


# --- where it applies ---------------------------------------------------------------------------


def active_of(text: str, **weights: object) -> dict[str, tuple[float, float] | None]:
    """Name of every layer that is solved -> where the activation behind it is not constant."""
    shapes = {"w0": (4, 3, 3, 3), "w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3)} | weights
    model = build(f"a = Conv {PAD} (x, w0) r = Tanh(a) {text}", shapes)  # type: ignore[arg-type]
    for node in model.graph.node:
        node.name = node.output[0]
    canonical = canonicalise(model)
    full, network = FullSize.of(canonical), find_groups(canonical)
    stages = stages_of(full.model, network, [full.slots["a"].weight])
    return {site.name: site.active for stage in stages for site in stage.sites}


TAIL = f"y = Conv {PAD} (s, w2)"


@pytest.mark.parametrize(
    ("nodes", "active"),
    [
        ("s = Relu(b)", (0.0, np.inf)),
        ("s = Clip(b, low, high)", (0.0, 6.0)),
        ("s = Clip(b, low)", (0.0, np.inf)),
        ("s = Clip(b, , high)", (-np.inf, 6.0)),
        ("s = Clip(b, low, listed)", (0.0, 6.0)),
        ("m = ReduceMax<keepdims=0>(r) s = Clip(b, low, m)", None),
        ("z = Add(b, r) s = Relu(z)", (0.0, np.inf)),
        ("z = Add(r, b) s = Relu(z)", (0.0, np.inf)),
        ("s = Tanh(b)", None),
        ("s = LeakyRelu(b)", None),
        ("s = Clip(b, low, low)", None),
        ("s = Identity(b)", None),
        ("g = Relu(b) s = Add(g, b)", None),  # somebody sees the sum itself
        ("z = Add(b, shift) s = Relu(z)", None),  # its rows are not those of the sum
    ],
)
def test_only_an_activation_that_alone_reads_the_sum_counts(
    nodes: str, active: tuple[float, float] | None
) -> None:
    low, high = np.array(0, np.float32), np.array(6, np.float32)
    shift = np.random.default_rng(0).standard_normal((4, 8, 8)).astype(np.float32)
    listed = np.array([6], np.float32)
    found = active_of(
        f"b = Conv {PAD} (r, w1) {nodes} {TAIL}", low=low, high=high, listed=listed, shift=shift
    )
    assert found["b"] == active
    assert found["y"] is None


# --- what it brings -----------------------------------------------------------------------------


def network(activation: str, joined: bool) -> onnx.ModelProto:
    """Layers behind a cut; one of them, perhaps with a residual join, has an activation."""
    total = "s = Add(c, h)" if joined else ""
    behind = f"{activation}({'s' if joined else 'c'}{', low, high' * (activation == 'Clip')})"
    nodes = (
        f"a = Conv {PAD} (x, w1, b1) h = Tanh(a) c = Conv {PAD} (h, w2, b2) {total} "
        f"d = {behind} y = Conv {PAD} (d, w3)"
    )
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (4, 8, 3, 3)}
    limits = {"low": np.array(0, np.float32), "high": np.array(1, np.float32)}
    return behind_a_cut(build(nodes, shapes | (limits if activation == "Clip" else {})))


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_what_the_activation_makes_comes_nearer(activation: str, joined: bool) -> None:
    """Measured behind the activation, on the images fitted on."""
    model = network(activation, joined)
    rng = np.random.default_rng(4)
    plain = rng.standard_normal((320, 3, 1, 1)) + 0.3 * rng.standard_normal((320, 3, 8, 8))
    known = studied(model, {"x": plain.astype(np.float32)}, Options(batch=32))
    keeps = random_keeps(known.network, np.random.default_rng(2), 0.5)
    prior = one_shot(known, keeps)
    subject = Subject(model)
    alive = subject.alive(keeps)
    feeds = list(known.batches(known.parts.fit))
    feed = {key: np.concatenate([f[key] for f in feeds]) for key in feeds[0]}
    (wanted,) = Session(exposed(subject.canonical, ["d"])).run(feed, ["d"])
    errors = []
    for recovery in (LINEAR, RECTIFIED, replace(RECTIFIED, sweeps=6)):
        weights = dict(in_order(known, prior, recovery).weights.arrays)
        pruned = scattered(subject, alive, weights)
        (made,) = Session(exposed(pruned, ["d"])).run(feed, ["d"])
        errors.append(float(np.sum((made - wanted) ** 2)))
    assert errors[1] < 0.99 * errors[0]
    assert errors[2] < errors[1]


def test_without_such_an_activation_nothing_changes() -> None:
    model = network("Tanh", joined=True)
    known = studied(model, samples_for(model), Options(batch=32))
    prior = one_shot(known, random_keeps(known.network, np.random.default_rng(2), 0.5))
    linear, rectified = (in_order(known, prior, r).weights.arrays for r in (LINEAR, RECTIFIED))
    behind = [m for m in known.network.consumers.values() if m.y.name in ("c", "y")]
    for linear_map in behind:
        for one, other in zip(linear[linear_map.name], rectified[linear_map.name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_sum_that_is_larger_than_what_a_layer_makes_is_left_to_least_squares() -> None:
    """One position of the layer then stands for many of the sum, whose signs differ."""
    nodes = (
        f"a = Conv {PAD} (x, w1, b1) h = Tanh(a) m = GlobalAveragePool(h) c = Conv (m, w2, b2) "
        f"s = Add(c, h) d = Relu(s) y = Conv {PAD} (d, w3)"
    )
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 1, 1), "b2": (8,), "w3": (4, 8, 3, 3)}
    model = behind_a_cut(build(nodes, shapes))
    known = studied(model, samples_for(model), Options(batch=32))
    prior = one_shot(known, random_keeps(known.network, np.random.default_rng(2), 0.5))
    linear, rectified = (in_order(known, prior, r).weights.arrays for r in (LINEAR, RECTIFIED))
    (layer,) = (m.name for m in known.network.consumers.values() if m.y.name == "c")
    np.testing.assert_array_equal(linear[layer][0], rectified[layer][0])
