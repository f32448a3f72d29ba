"""Attention in one node: what is frozen, what its attributes become, and what it costs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build, floats, ints
from onnx import helper
from oracles import Subject
from small_networks import random_samples

from onnxprune import Options, Target, prune
from onnxprune.canonical import canonicalise
from onnxprune.contractions import ContractionView, contraction_views
from onnxprune.groups import find_groups
from onnxprune.layer_problem import LayerProblem
from onnxprune.rewrite import apply
from onnxprune.statistics import collect


def frozen_reasons(model: onnx.ModelProto) -> dict[str, str]:
    return {f.producer: f.reason for f in find_groups(canonicalise(model)).frozen}


def last(model: onnx.ModelProto, op: str) -> dict[str, object]:
    """The attributes of the last node of an operator."""
    node = [node for node in model.graph.node if node.op_type == op][-1]
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


LINEAR = {"wq": (8, 24), "wk": (8, 24), "wv": (8, 24), "wo": (24, 8)}
PROJECT = "q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)"


def attending(node: str, inputs: str = "", outputs: str = "", **options: int) -> onnx.ModelProto:
    return build(
        f"{PROJECT} {node} y = MatMul (h, wo)",
        LINEAR,
        inputs=f"float[N,7,8] x {inputs}",
        outputs=f"float[N,7,8] y {outputs}",
        **options,
    )


CACHE = ", float[N,4,3,6] pk, float[N,4,3,6] pv"
KEPT = ", float[N,4,10,6] nk, float[N,4,10,6] nv"


@pytest.mark.parametrize(
    ("node", "inputs", "outputs", "opset"),
    [
        (
            "h, nk, nv = com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v, , , , pk, pv)",
            CACHE,
            KEPT,
            17,
        ),
        (
            "h, nk, nv = Attention <q_num_heads=4, kv_num_heads=4> (q, k, v, , pk, pv)",
            CACHE,
            KEPT,
            23,
        ),
        (
            "h, , , s = Attention <q_num_heads=4, kv_num_heads=4> (q, k, v)",
            "",
            ", float[N,4,7,7] s",
            23,
        ),
    ],
)
def test_heads_that_are_inputs_or_outputs_are_frozen(
    node: str, inputs: str, outputs: str, opset: int
) -> None:
    reasons = frozen_reasons(attending(node, inputs, outputs, opset=opset, ir=10))
    seen = "'s'" if "'s'" in reasons["MatMul_0"] else "'pk', 'pv', 'nk', 'nv'"
    for name in ("MatMul_0", "MatMul_1", "MatMul_2"):
        assert reasons[name].endswith(f"Attention_3' has {seen}")


@pytest.mark.parametrize(
    "node",
    [
        "h = com.microsoft.MultiHeadAttention <num_heads=5> (q, k, v)",
        "h = com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v, bias)",
        "h = Attention <q_num_heads=4, kv_num_heads=3> (q, k, v)",
        "h = com.microsoft.GroupQueryAttention <num_heads=4, kv_num_heads=4> (q, k, v, , , l, m)",
    ],
    ids=["heads that do not divide", "computed bias", "uneven sharing", "no rule"],
)
def test_attention_that_a_rule_leaves_out_is_frozen(node: str) -> None:
    more = ", float[72] bias, int32[N] l, int32 m"
    model = attending(node, more, opset=23, ir=10)
    reasons = frozen_reasons(model)
    assert all("Attention" in reasons[f"MatMul_{place}"] for place in range(3))
    assert find_groups(canonicalise(model)).groups == ()


def test_a_mask_of_unknown_shape_keeps_the_heads_and_not_their_widths() -> None:
    model = attending(
        "n = Shape (z) near = Expand (one, n)"
        " h = Attention <q_num_heads=4, kv_num_heads=4> (q, k, v, near)",
        ", float[A,B,C,D] z",
        opset=23,
        ir=10,
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats(0), "one"))
    assert sorted(g.size for g in find_groups(canonicalise(model)).groups) == [6, 6]


@pytest.mark.parametrize(
    ("name", "op", "heads", "scale"),
    [
        ("com.microsoft MultiHeadAttention", "MultiHeadAttention", {"num_heads": 3}, 6**-0.5),
        ("com.microsoft Attention with a mask", "MultiHeadAttention", {"num_heads": 3}, 0.3),
        ("Attention", "Attention", {"q_num_heads": 3, "kv_num_heads": 3}, 6**-0.5),
        ("Attention, heads apart", "Attention", {}, 0.3),
        (
            "Attention, heads apart, shared keys and a mask",
            "Attention",
            {},
            6**-0.5,
        ),
    ],
)
def test_numbers_of_heads_follow_and_the_scale_stays(
    name: str, op: str, heads: dict[str, int], scale: float
) -> None:
    micro = Subject(MICRO_MODELS[name]())
    keeps = {g.name: np.arange(g.size - 1) for g in micro.network.groups}
    attributes = last(apply(micro.model, micro.plan(keeps)), op)
    assert {key: value for key, value in attributes.items() if "heads" in key} == heads
    assert attributes["scale"] == pytest.approx(scale)


def test_queries_that_share_a_key_go_with_it() -> None:
    micro = Subject(MICRO_MODELS["Attention, shared keys"]())
    heads, places, inner = micro.network.groups
    assert (heads.size, places.size, inner.size) == (2, 6, 6)
    keeps = {heads.name: np.array([1])}
    attributes = last(apply(micro.model, micro.plan(keeps)), "Attention")
    assert (attributes["q_num_heads"], attributes["kv_num_heads"]) == (2, 1)


def test_an_attention_that_is_not_cut_keeps_its_attributes() -> None:
    micro = Subject(MICRO_MODELS["Attention"]())
    inner = micro.network.groups[2]
    pruned = apply(micro.model, micro.plan({inner.name: np.array([0])}))
    assert "scale" not in last(pruned, "Attention")


# --- what the numerics make of it ---------------------------------------------------------------

APART = """
q4 = Reshape (q, many) qh = Transpose <perm=[0,2,1,3]> (q4)
k4 = Reshape (k, few) kh = Transpose <perm=[0,2,1,3]> (k4)
v4 = Reshape (v, few) vh = Transpose <perm=[0,2,1,3]> (v4)
a = Attention (qh, kh, vh) t = Transpose <perm=[0,2,1,3]> (a) h = Reshape (t, flat)
"""


def priced(node: str, heads: int = 4) -> tuple[ContractionView, LayerProblem]:
    """The product of queries and keys in an attention, and what its places cost."""
    weights = LINEAR | {"wk": (8, 6 * heads), "wv": (8, 6 * heads)}
    shapes = {"many": ints(0, 0, 4, 6), "few": ints(0, 0, heads, 6), "flat": ints(0, 0, 24)}
    model = build(
        f"{PROJECT} {node} y = MatMul (h, wo)",
        weights | (shapes if "Reshape" in node else {}),
        inputs="float[N,7,8] x",
        outputs="float[N,7,8] y",
        opset=23,
        ir=10,
    )
    canonical = canonicalise(model)
    network = find_groups(canonical)
    (view,) = contraction_views(canonical, network, network.groups, recover=False).values()
    feed = random_samples(canonical, 5)
    grams = collect(canonical, view.specs, [feed], samples=5, rows_per_feature=1000)
    (problem,) = view.problems(grams, grams)
    return view, problem


@pytest.mark.parametrize(
    "node",
    [
        "h = com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v)",
        "h = Attention <q_num_heads=4, kv_num_heads=4> (q, k, v)",
    ],
)
def test_places_cost_as_much_as_where_heads_are_apart(node: str) -> None:
    view, problem = priced(node)
    _, expected = priced(APART)
    assert (view.channels.size, problem.channels.size) == (24, 6)
    np.testing.assert_allclose(problem.gram, expected.gram, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(problem.weight, expected.weight)


def test_a_key_that_queries_share_is_priced_with_each() -> None:
    _, problem = priced("h = Attention <q_num_heads=4, kv_num_heads=2> (q, k, v)", heads=2)
    assert problem.gram.shape == (7, 7)
    assert np.linalg.eigvalsh(problem.gram).min() > -1e-6


@pytest.mark.parametrize(
    "name",
    [
        "com.microsoft MultiHeadAttention, biases and masks",
        "com.microsoft Attention with a mask",
        "Attention, shared keys",
        "RotaryEmbedding",
        "DeformConv grouped",
        "FFN of com.microsoft nodes",
    ],
)
def test_prune_from_end_to_end(name: str) -> None:
    model = MICRO_MODELS[name]()
    result = prune(
        model, random_samples(model), Target.parse("ratio=0.3"), options=Options(align=1)
    )
    assert any(len(edit.keep) < edit.size for edit in result.plan.edits)
