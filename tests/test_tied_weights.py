"""Several nodes with one weight: one cut, one least squares, one tensor in the file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS
from small_networks import random_samples, studied

from onnxprune import Options, Target, prune
from onnxprune.gram import Gram
from onnxprune.runtime import Session

TIED = [name for name in MICRO_MODELS if name.startswith("tied")]


def error(model: onnx.ModelProto, pruned: onnx.ModelProto) -> float:
    feed = random_samples(model, 50, seed=1)
    pairs = zip(Session(pruned).run(feed), Session(model).run(feed), strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b - b.mean(0))) for a, b in pairs)


@pytest.mark.parametrize("name", TIED)
def test_a_tied_weight_stays_one_tensor(name: str) -> None:
    model = MICRO_MODELS[name]()
    result = prune(model, random_samples(model), Target.parse("ratio=0.5"))
    weights = [t for t in result.model.graph.initializer if len(t.dims) > 1]
    assert len(weights) == len([t for t in model.graph.initializer if len(t.dims) > 1])
    readers = [sum(t.name in node.input for node in result.model.graph.node) for t in weights]
    assert max(readers) == 2


@pytest.mark.parametrize("name", TIED)
def test_refitting_for_all_readers_beats_slicing(name: str) -> None:
    model = MICRO_MODELS[name]()
    samples, target = random_samples(model, 300), Target.parse("ratio=0.3")
    options = {"criterion": "random", "allocation": "uniform", "align": 1}
    recovered, sliced = (
        error(model, prune(model, samples, target, options=Options(**options, recovery=on)).model)
        for on in (True, False)
    )
    assert recovered < 0.9 * sliced


def test_the_problem_of_a_tied_weight_is_the_sum_over_its_readers() -> None:
    known = studied(MICRO_MODELS["tied heads of a pyramid"]())
    view = next(v for v in known.study.views.values() if len(v.specs) == 2)
    rng = np.random.default_rng(0)
    features = view.channels.size * 9
    grams = {}
    for spec in view.specs:
        rows = rng.standard_normal((50, features + 1))
        rows[:, -1] = 1
        grams[spec] = Gram(1, features)
        grams[spec].add((rows.T @ rows)[None])
    (problem,) = view.problems(grams, grams)
    total = sum(gram.sums[0] for gram in grams.values())
    np.testing.assert_allclose(problem.gram, total / 100)
    assert problem.rows == 100
