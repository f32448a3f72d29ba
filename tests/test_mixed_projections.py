"""Places of queries and keys are cut, and a projection takes over: from end to end."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_attention import ATTEND, DIVIDE, PROJECT, SHAPES, TOKENS, attention
from micro_attention import LINEAR as WEIGHTS
from micro_models import MICRO_MODELS, build, ints
from onnx import numpy_helper
from oracles import distance, random_feed
from small_networks import Studied, random_samples, studied

from onnxprune import Options, Target, prune
from onnxprune.canonical import canonicalise
from onnxprune.contractions import ContractionView, contraction_views
from onnxprune.groups import find_groups
from onnxprune.plan import Weights
from onnxprune.refit import refit
from onnxprune.rewrite import apply
from onnxprune.runtime import Session

TURNED = ("attention, rotated", "RotaryEmbedding", "com.microsoft RotaryEmbedding")
ATTENTIONS = [
    name
    for name in MICRO_MODELS
    if ("ttention" in name or "otary" in name) and name != "RotaryEmbedding, heads apart"
]
HIDDEN = attention(
    "z = MatMul (x, wz) r = Relu (z)"
    f" {PROJECT.replace('(x,', '(r,')} {DIVIDE} {ATTEND}",
    {"wz": (8, 12), "wq": (12, 24), "wk": (12, 24), "wv": (12, 24)},
)()  # fmt: skip
"""Queries, keys and values read hidden units, which may be cut as well."""
TWICE = build(
    f"{PROJECT} {DIVIDE} {ATTEND.replace('y = ', 'o = ')} e = ReduceMean <axes=[1]> (qb)"
    " f = MatMul (e, we) g = Reshape (f, one) y = Add (o, g)",
    WEIGHTS | SHAPES | {"we": (24, 8), "one": ints(-1, 1, 8)},
    inputs=TOKENS,
    outputs="float[N,7,8] y",
)
"""Something else reads the queries, so that the keys have to take over."""


def view_of(model: onnx.ModelProto) -> ContractionView:
    canonical = canonicalise(model)
    network = find_groups(canonical)
    (view,) = contraction_views(canonical, network, network.groups).values()
    return view


def width_group(model: onnx.ModelProto) -> str:
    """The group of the places of queries and keys."""
    network = find_groups(canonicalise(model))
    places = view_of(model).places
    (name,) = (g.name for g in network.groups if np.isin(places, g.channels).any())
    return name


def low_rank(name: str) -> onnx.ModelProto:
    """A model in which half of the places of every key say all.

    What is added to all keys alike stays: a softmax does not see it.
    """
    model = canonicalise(MICRO_MODELS[name]())
    view = view_of(model)
    assert view.fold is not None
    place = 1 - view.fold.place
    projection = view.factors[place].projection
    width = view.places.size
    rng = np.random.default_rng(3)
    initializers = {t.name: t for t in model.graph.initializer}
    if projection is None:  # keys that queries share are repeated: no map of their own
        weight, axis, rows = initializers["wk"], 1, np.arange(12).reshape(2, 6)
    else:
        linear_map = projection.linear_map
        weight, axis = initializers[linear_map.weight.name], linear_map.out_axis
        rows = projection.rows
    values = np.moveaxis(numpy_helper.to_array(weight).copy(), axis, 0)
    for head in rows:
        mixing = rng.standard_normal((width, width // 2)).astype(np.float32)
        values[head] = mixing @ values[head[: width // 2]]
    weight.CopyFrom(numpy_helper.from_array(np.moveaxis(values, 0, axis).copy(), weight.name))
    return model


def gap(model: onnx.ModelProto, *, recovery: bool = True) -> float:
    """How far the outputs move when half of the width of queries and keys is cut."""
    options = Options(align=1, include=f"^{width_group(model)}$", recovery=recovery, latency=False)
    result = prune(model, random_samples(model), Target.parse("ratio=0.5"), options=options)
    feed = random_feed(model, np.random.default_rng(1), batch=1, size=5)
    return distance(Session(result.model).run(feed), Session(model).run(feed))


TIED = ("attention, packed", "attention, packed, five axes split")
"""Their values have the places of queries and keys, and lose what those do not need."""
ONE_SAMPLE = ("attention, heads in the batch",)
OPEN_LENGTH = ("Einsum attention",)


@pytest.mark.parametrize(
    "name", [n for n in ATTENTIONS if n not in (*TURNED, *ONE_SAMPLE, *OPEN_LENGTH)]
)
def test_keys_that_half_of_their_places_tell_lose_nothing(name: str) -> None:
    model = low_rank(name)
    recovered, sliced = gap(model), gap(model, recovery=False)
    assert recovered < 1e-3
    assert sliced > 20 * recovered


def test_the_keys_take_over_where_queries_are_read_twice() -> None:
    view = view_of(TWICE)
    assert view.fold is not None
    assert (view.fold.place, view.fold.linear_map.weight.name) == (1, "wk")


@pytest.mark.parametrize("name", TURNED)
def test_what_is_rotated_is_priced_as_lost(name: str) -> None:
    model = MICRO_MODELS[name]()
    assert view_of(model).fold is None
    samples = random_samples(model)
    known = studied(model, samples, options=Options(align=1))
    for contraction in known.study.contractions:
        (problem,) = known.study.layers[contraction]
        assert not problem.refit


def cut(known: Studied, share: float) -> tuple[onnx.ModelProto, Weights]:
    """The model with a share of every group, recovered."""
    stages = known.study
    keeps = stages.keeps({g.name: max(1, int(share * g.size)) for g in stages.groups})
    alive = stages.survivors(keeps)
    weights = refit(
        stages.views, stages.layers, alive, stages.recovery, stages.contractions
    ).weights
    return apply(known.model, known.plan(keeps), weights), weights


@pytest.mark.parametrize("model", [HIDDEN, TWICE], ids=["hidden units", "queries read twice"])
def test_recovered_scores_are_nearer_than_sliced_ones(model: onnx.ModelProto) -> None:
    assert gap(model) < 0.8 * gap(model, recovery=False)


def test_no_node_is_added() -> None:
    """The bias of mixed queries goes into the constant that is added to them."""
    model = MICRO_MODELS["attention"]()
    width = [g for g in find_groups(canonicalise(model)).groups if g.name == width_group(model)]
    pruned, weights = cut(studied(model, options=Options(align=1), groups=width), 0.5)
    assert weights.arrays["MatMul_0"][1].any()
    ops = [[node.op_type for node in m.graph.node] for m in (canonicalise(model), pruned)]
    assert ops[0].count("Add") == ops[1].count("Add") == 1


def test_without_recovery_projections_are_sliced() -> None:
    known = studied(MICRO_MODELS["attention"](), options=Options(align=1, recovery=False))
    _, weights = cut(known, 0.5)
    assert "MatMul_0" not in weights.arrays
    for view in known.study.contractions.values():
        assert view.fold is None


def test_heads_that_are_gone_are_not_solved() -> None:
    known = studied(MICRO_MODELS["attention"](), options=Options(align=1))
    stages = known.study
    heads = next(g for g in stages.groups if g.size == 4)
    width = next(g for g in stages.groups if g.contractions and not g.consumers)
    keeps = {heads.name: np.array([0, 2]), width.name: np.array([1, 2, 5])}
    alive = stages.survivors(keeps)
    prior = refit(stages.views, stages.layers, alive, stages.recovery, stages.contractions)
    (name,) = stages.contractions
    assert len(prior.solutions[name]) == 2
    weight = prior.weights.arrays["MatMul_0"][0]
    original = stages.network.producers["MatMul_0"].weight.values
    changed = np.flatnonzero((weight != original).any(axis=0))
    np.testing.assert_array_equal(changed, [1, 2, 5, 13, 14, 17])


def test_the_problems_are_those_of_the_scores_of_each_head() -> None:
    known = studied(MICRO_MODELS["attention"](), options=Options(align=1))
    ((name, view),) = known.study.contractions.items()
    problems = known.study.layers[name]
    assert [problem.name for problem in problems] == [f"{name}[{head}]" for head in range(4)]
    assert all(problem.refit for problem in problems)
    assert len({problem.variance for problem in problems}) == 1
    assert view.fold is not None
    np.testing.assert_array_equal(view.fold.channels.shape, (4, 6))


def test_weights_written_to_a_file_make_the_same_model(tmp_path) -> None:
    known = studied(MICRO_MODELS["attention, packed"](), options=Options(align=1))
    pruned, weights = cut(known, 0.5)
    weights.save(tmp_path / "weights.npz")
    again = Weights.load(tmp_path / "weights.npz")
    stages = known.study
    keeps = stages.keeps({g.name: max(1, g.size // 2) for g in stages.groups})
    assert apply(known.model, known.plan(keeps), again) == pruned


def test_the_report_says_how_scores_were_recovered() -> None:
    model = MICRO_MODELS["attention"]()
    options = Options(align=1, include=f"^{width_group(model)}$", latency=False)
    result = prune(model, random_samples(model), Target.parse("ratio=0.5"), options=options)
    (group,) = result.report.groups
    ((name, consumer),) = group.consumers.items()
    assert name == "MatMul_10"
    assert consumer.error is not None
    assert 0 < consumer.error < 1
    assert "least squares" in consumer.recovery
