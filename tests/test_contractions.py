"""Products of two activations: what an index they sum over is worth."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS
from small_networks import random_samples, studied

from onnxprune import Options, Target, prune
from onnxprune.canonical import canonicalise
from onnxprune.contractions import contraction_views
from onnxprune.criteria import CRITERIA
from onnxprune.extract import exposed
from onnxprune.groups import find_groups
from onnxprune.network import ChannelGroup
from onnxprune.runtime import Session
from onnxprune.statistics import collect

WIDTH = 6


def attention(silent: tuple[int, ...] = ()) -> onnx.ModelProto:
    """Four heads of width 6; places of the heads in which every query is zero."""
    model = MICRO_MODELS["attention"]()
    for tensor in model.graph.initializer:
        if tensor.name in ("wq", "bq"):
            values = onnx.numpy_helper.to_array(tensor).copy()
            values.reshape(-1, 4, WIDTH)[..., list(silent)] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


def width_of_queries(model: onnx.ModelProto) -> ChannelGroup:
    (group,) = [g for g in find_groups(canonicalise(model)).groups if not g.consumers]
    return group


def test_a_group_of_query_and_key_width_is_read_by_the_product_alone() -> None:
    group = width_of_queries(attention())
    assert (group.size, len(group.producers), len(group.contractions)) == (WIDTH, 2, 1)


def test_the_problem_is_that_of_the_scores() -> None:
    """Rows q and k of a head, paired in all ways: the mean over pairs is the product of means.

    The mean of k is taken out: it adds the same to all scores of a query.
    """
    canonical = canonicalise(attention())
    network = find_groups(canonical)
    (view,) = contraction_views(canonical, network, network.groups, recover=False).values()
    feed = random_samples(canonical, 5)
    grams = collect(canonical, view.specs, [feed], samples=5, rows_per_feature=1000)
    (problem,) = view.problems(grams, grams)
    inputs = [tensor.name for tensor in view.contraction.node.inputs]
    query, key = Session(exposed(canonical, inputs)).run(feed, inputs)
    moments = np.zeros((WIDTH + 1, WIDTH + 1))
    for head in range(4):
        rows = query[:, head].reshape(-1, WIDTH), key[:, head].swapaxes(1, 2).reshape(-1, WIDTH)
        rows = rows[0], rows[1] - rows[1].mean(0)
        features = (rows[0][:, None] * rows[1][None]).reshape(-1, WIDTH).astype(np.float64)
        features = np.column_stack([features, np.ones(len(features))])
        moments += features.T @ features / len(features) / 4
    np.testing.assert_allclose(problem.gram, moments, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(problem.weight, [[1] * WIDTH + [0]])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_price_is_the_loss_of_the_scores_with_nothing_refitted(criterion: str) -> None:
    options = Options(criterion=criterion, align=1, recovery=False)
    known = studied(attention(), options=options)
    ((problem,),) = [known.study.layers[name] for name in known.study.contractions]
    ranking = known.study.rankings[width_of_queries(attention()).name]
    gram = problem.gram[:-1, :-1]
    lost = [gram[np.ix_(cut, cut)].sum() for k in range(WIDTH + 1) for cut in [ranking.order[k:]]]
    wanted = np.maximum.accumulate(np.array(lost)[::-1])[::-1] / gram.sum()
    np.testing.assert_allclose(ranking.error, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("criterion", set(CRITERIA) - {"random", "medoids"})
def test_places_that_say_nothing_go_first(criterion: str) -> None:
    model = attention(silent=(1, 4))
    known = studied(model, options=Options(criterion=criterion, align=1))
    group = width_of_queries(model)
    ranking = known.study.rankings[group.name]
    assert set(ranking.order[-2:].tolist()) == {1, 4}
    assert ranking.error[WIDTH - 2] == pytest.approx(0, abs=1e-9)


def test_cutting_places_that_say_nothing_loses_nothing() -> None:
    model = attention(silent=(0, 3, 5))
    group = width_of_queries(model)
    options = Options(align=1, include=f"^{group.name}$")
    result = prune(model, random_samples(model), Target.parse("ratio=0.5"), options=options)
    ((kept,),) = [[edit.keep for edit in result.plan.edits]]
    assert kept == (1, 2, 4)
    feed = random_samples(model, 3, seed=1)
    (before,), (after,) = (Session(m).run(feed) for m in (model, result.model))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
