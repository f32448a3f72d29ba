"""The canonical form computes the same function and is written one way."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from micro_models import (
    CONV_IN,
    CONV_OUT,
    CONVS,
    MICRO_MODELS,
    NORM,
    SCORES,
    build,
    floats,
    ints,
    positive,
)
from onnx import helper, numpy_helper, parser
from oracles import EPS, Subject, distance, outputs_match, random_feed, run, tolerance

from onnxprune.canonical import canonicalise
from onnxprune.concrete import concrete
from onnxprune.errors import UnsupportedModelError
from onnxprune.stand_ins import opset_of

FOLDED = 64 * EPS
"""Folding rounds every weight once more: some eps per product, some hundred products."""


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_the_function_stays_and_the_argument_is_left_alone(
    name: str, rng: np.random.Generator
) -> None:
    model = MICRO_MODELS[name]()
    before = model.SerializeToString(deterministic=True)
    for fold in (True, False):
        outputs_match(canonicalise(model, fold_batchnorm=fold), model, FOLDED, rng)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_the_canonical_form_of_a_canonical_form_is_itself(name: str) -> None:
    once = canonicalise(MICRO_MODELS[name]())
    assert canonicalise(once).SerializeToString() == once.SerializeToString()


@pytest.mark.parametrize(
    "name",
    [
        "BatchNormalization folded",
        "BatchNormalization folded into depthwise",
        "BatchNormalization after Gemm",
        "BatchNormalization folded into ConvTranspose",
    ],
)
def test_batch_normalization_folds_into_the_map_before_it(name: str) -> None:
    model = MICRO_MODELS[name]()
    assert "BatchNormalization" not in ops(canonicalise(model))
    assert "BatchNormalization" in ops(canonicalise(model, fold_batchnorm=False))


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        # Its input is read by others too, is an output, or is no linear map's.
        (f"{CONV_IN} n = BatchNormalization(c, s, t, m, v) h = Add(n, c) {CONV_OUT}", ""),
        (f"{CONV_IN} h = BatchNormalization(c, s, t, m, v) {CONV_OUT}", ", float[N,8,8,8] c"),
        (f"{CONV_IN} r = Relu(c) h = BatchNormalization(r, s, t, m, v) {CONV_OUT}", ""),
    ],
)
def test_batch_normalization_stays_where_folding_would_be_wrong(
    nodes: str, outputs: str, rng: np.random.Generator
) -> None:
    model = build(nodes, CONVS | NORM, outputs=f"float[N,4,HY,WY] y{outputs}")
    canonical = canonicalise(model)
    assert "BatchNormalization" in ops(canonical)
    outputs_match(canonical, model, FOLDED, rng)


def test_a_gemm_bias_per_sample_is_not_folded(rng: np.random.Generator) -> None:
    model = build(
        "a = Gemm <alpha=0.5, beta=2.0> (x, w1, b1) n = BatchNormalization(a, s, t, m, v)"
        " y = Gemm(n, w2)",
        NORM | {"w1": (6, 8), "b1": (2, 8), "w2": (8, 5)},
        inputs="float[2,6] x",
        outputs="float[2,5] y",
    )
    canonical = canonicalise(model)
    assert "BatchNormalization" in ops(canonical)
    outputs_match(canonical, model, FOLDED, rng)


def test_a_gemm_bias_down_the_samples_is_no_vector(rng: np.random.Generator) -> None:
    model = build(
        "y = Gemm <beta=2.0> (x, w1, b1)",
        {"w1": (6, 4), "b1": (4, 1)},
        inputs="float[4,6] x",
        outputs="float[4,4] y",
    )
    outputs_match(canonicalise(model), model, FOLDED, rng)


def test_gemms_lose_their_factors_and_get_bias_vectors() -> None:
    for name in ("Gemm alpha and beta", "Gemm scalar bias", "Gemm without bias"):
        canonical = canonicalise(MICRO_MODELS[name]())
        biases = {t.name: list(t.dims) for t in canonical.graph.initializer}
        for node in canonical.graph.node:
            if node.op_type == "Gemm":
                found = attributes(node)
                assert found.get("alpha", 1.0) == found.get("beta", 1.0) == 1.0
                assert all(len(biases[name]) == 1 for name in node.input[2:])


def test_constants_are_folded_and_held_as_float32(rng: np.random.Generator) -> None:
    model = build(
        "k = Constant <value_float = 0.5> () l = Constant <value_floats = [1.0, 2.0]> ()"
        " i = Constant <value_int = 3> () j = Cast <to=1> (i) s = ReduceSum <keepdims=0> (l, z)"
        f" t = Mul(s, k) u = Add(t, j) {CONV_IN} h = Mul(c, u) {CONV_OUT}",
        CONVS | {"z": ints(0)},
    )
    canonical = canonicalise(model)
    assert ops(canonical) == ["Conv", "Mul", "Conv"]
    values = [numpy_helper.to_array(t) for t in canonical.graph.initializer if not t.dims]
    assert [(v.dtype, float(v)) for v in values] == [(np.float32, 4.5)]
    outputs_match(canonical, model, FOLDED, rng)


def test_float_arithmetic_on_extents_stays_float(rng: np.random.Generator) -> None:
    # 9 * 1.5 is 13.5: done in integers, as graphsurgeon's shape folding would, it is 9.
    model = build(
        "s = Shape(x) w = Gather(s, two) f = Cast <to=1> (w) g = Mul(f, k) i = Cast <to=7> (g)"
        " j = Cast <to=1> (i) y = Mul(x, j)",
        {"two": ints(2), "k": floats(1.5)},
        inputs="float[N,3,H,8] x",
        outputs="float[N,3,H,8] y",
    )
    outputs_match(canonicalise(model), model, FOLDED, rng, size=9)


def test_reshapes_to_the_inputs_own_shape_are_written_with_zero() -> None:
    canonical = canonicalise(MICRO_MODELS["Reshape from the input's shape"]())
    assert "Shape" not in ops(canonical)
    (reshape,) = [node for node in canonical.graph.node if node.op_type == "Reshape"]
    (shape,) = [t for t in canonical.graph.initializer if t.name == reshape.input[1]]
    assert numpy_helper.to_array(shape).tolist() == [0, 96]


@pytest.mark.parametrize(
    ("chain", "outcome"),
    [
        ("s = Shape(c) u = Slice(s, zero, one) shape = Concat <axis=0> (u, rest)", [0, 512]),
        ("s = Shape(x) u = Slice(s, zero, one) shape = Concat <axis=0> (u, rest)", [0, 512]),
        ("s = Shape <start=0, end=1> (c) shape = Concat <axis=0> (s, minus)", [0, 512]),
        ("s = Shape(c) u = Gather(s, zero) shape = Concat <axis=0> (minus, rest)", [-1, 512]),
        ("s = Shape(z) u = Gather(s, one) shape = Concat <axis=0> (u, rest)", [-1, 512]),
    ],
)
def test_shape_chains_are_followed(
    chain: str, outcome: list[int], rng: np.random.Generator
) -> None:
    model = build(
        f"{CONV_IN} {chain} h = Reshape(c, shape) y = Gemm(h, w3)",
        CONVS
        | {
            "zero": ints(0),
            "one": ints(1),
            "minus": ints(-1),
            "rest": ints(512),
            "w3": (512, 5),
        },
        inputs="float[N,3,8,8] x, float[3,M] z",
        outputs=SCORES,
    )
    canonical = canonicalise(model)
    (reshape,) = [node for node in canonical.graph.node if node.op_type == "Reshape"]
    (shape,) = [t for t in canonical.graph.initializer if t.name == reshape.input[1]]
    assert numpy_helper.to_array(shape).tolist() == outcome
    feed = random_feed(model, rng, 2)
    feed["z"] = np.ones((3, 2), np.float32)
    assert distance(run(canonical, feed), run(model, feed)) <= FOLDED


def test_a_shape_with_two_unknown_extents_stays_computed(rng: np.random.Generator) -> None:
    model = build(
        f"{CONV_IN} s = Shape(z) u = Gather(s, one) shape = Concat <axis=0> (u, minus)"
        " y = Reshape(c, shape)",
        CONVS | {"one": ints(1), "minus": ints(-1)},
        inputs="float[N,3,8,8] x, float[3,M] z",
        outputs="float[A,B] y",
    )
    canonical = canonicalise(model)
    assert "Shape" in ops(canonical)
    feed = random_feed(model, rng, 2) | {"z": np.ones((3, 4), np.float32)}
    assert distance(run(canonical, feed), run(model, feed)) <= FOLDED


def test_functions_are_inlined(rng: np.random.Generator) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}>
        { y = local.twice (x, w) }
        <domain: "local", opset_import: ["" : 17]>
        twice (a, b) => (c)
        { m = MatMul(a, b) k = Constant <value_float = 2.0> () c = Mul(m, k) }"""
    )
    canonical = canonicalise(model)
    assert ops(canonical) == ["MatMul", "Mul"]
    assert not canonical.functions
    outputs_match(canonical, model, FOLDED, rng)


def test_random_operators_are_not_folded() -> None:
    model = build(
        f"{CONV_IN} n = RandomNormalLike(k) h = Add(c, n) {CONV_OUT}", CONVS | {"k": floats(1)}
    )
    assert "RandomNormalLike" in ops(canonicalise(model))


def test_sparse_constants_become_dense(rng: np.random.Generator) -> None:
    model = build("y = Gemm(x, w)", {}, inputs="float[N,6] x", outputs=SCORES)
    values = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [2.0, 3.0])
    places = helper.make_tensor("i", onnx.TensorProto.INT64, [2], [1, 13])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [6, 5]))
    canonical = canonicalise(model)
    (weight,) = [numpy_helper.to_array(t) for t in canonical.graph.initializer]
    assert weight[0, 1] == 2
    assert weight[2, 3] == 3
    assert weight.sum() == 5
    outputs_match(canonical, model, FOLDED, rng)


def test_nodes_get_unique_names() -> None:
    model = build(f"{CONV_IN} q = Relu(c) h = Sigmoid(q) {CONV_OUT}", CONVS)
    for node, name in zip(model.graph.node, ["", "same", "same", "Conv_0"], strict=True):
        node.name = name
    names = [node.name for node in canonicalise(model).graph.node]
    assert len(set(names)) == 4
    assert names[1] == "same"
    assert names[3] == "Conv_0"


def test_small_shared_constants_get_one_copy_per_reader() -> None:
    canonical = canonicalise(MICRO_MODELS["shared small constant"]())
    biases = [node.input[2] for node in canonical.graph.node if len(node.input) > 2]
    assert len(set(biases)) == len(biases) == 2


def test_a_constant_that_is_an_output_stays_whole(rng: np.random.Generator) -> None:
    model = build(
        f"{CONV_IN} h = Mul(c, k) {CONV_OUT}",
        CONVS | {"k": positive(0, 8, 1, 1)},
        outputs="float[N,4,HY,WY] y, float[8,1,1] k",
    )
    micro = Subject(model)
    assert [group.name for group in micro.network.groups] == ["Conv_0"]
    outputs_match(micro.canonical, model, FOLDED, rng)


@pytest.mark.parametrize(
    "name",
    ["Conv SAME_UPPER", "Conv SAME_LOWER", "Conv VALID", "Conv SAME_UPPER strided, dynamic size"],
)
def test_paddings_are_spelt_out_where_the_size_is_known(name: str) -> None:
    canonical = canonicalise(MICRO_MODELS[name]())
    modes = ["auto_pad" in attributes(n) for n in canonical.graph.node if n.op_type == "Conv"]
    assert modes == [name.endswith("dynamic size")] * 2


@pytest.mark.parametrize("name", ["Split implied", "Split implied, opset 11", "Split num_outputs"])
def test_implied_split_sizes_are_spelt_out(name: str) -> None:
    canonical = canonicalise(MICRO_MODELS[name]())
    (node,) = [n for n in canonical.graph.node if n.op_type == "Split"]
    if opset_of(canonical) < 13:
        assert attributes(node)["split"] == [4, 4]
    else:
        (sizes,) = [t for t in canonical.graph.initializer if t.name == node.input[1]]
        assert numpy_helper.to_array(sizes).tolist() == [4, 4]
        assert "num_outputs" not in attributes(node)


def test_quantised_models_are_refused_with_the_way_out() -> None:
    model = build(
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
        {"s": np.float32(0.1) * np.ones((), np.float32), "z": np.zeros((), np.uint8)},
        outputs="float[N,3,8,8] y",
    )
    with pytest.raises(UnsupportedModelError, match=r"QuantizeLinear x1.*prune the float model"):
        canonicalise(model)


def test_old_opsets_are_refused_with_the_way_out() -> None:
    model = build("y = Relu(x)", {}, outputs="float[N,3,8,8] y", opset=6, ir=3)
    with pytest.raises(UnsupportedModelError, match=r"opset 6.*convert_version"):
        canonicalise(model)


def test_attributes_that_graphsurgeon_drops_survive(rng: np.random.Generator) -> None:
    model = build(f"{CONV_IN} h = Relu(c) {CONV_OUT}", CONVS)
    empty = helper.make_node("Optional", [], ["o"])
    kind = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [2])
    empty.attribute.append(helper.make_attribute("type", kind))
    has = helper.make_node("OptionalHasElement", ["o"], ["has"])
    model.graph.node.extend([empty, has])
    model.graph.output.append(helper.make_tensor_value_info("has", onnx.TensorProto.BOOL, []))
    canonical = canonicalise(model)
    (node,) = [n for n in canonical.graph.node if n.op_type == "Optional"]
    assert attributes(node)["type"] == kind


def test_concrete_fixes_the_inputs_of_a_copy() -> None:
    canonical = canonicalise(MICRO_MODELS["Conv dynamic height and width"]())
    before = canonical.SerializeToString()
    fixed = concrete(canonical, {"x": (2, 3, 10, 12)})
    shapes = {t.name: t.shape for t in gs.import_onnx(fixed).tensors().values()}
    assert shapes["a"] == [2, 8, 10, 12]
    assert shapes["y"] == [2, 5]
    assert canonical.SerializeToString() == before


def test_a_model_without_anything_to_fold_keeps_its_outputs_exactly(
    rng: np.random.Generator,
) -> None:
    model = MICRO_MODELS["residual"]()
    feed = random_feed(model, rng, 2)
    assert distance(run(canonicalise(model), feed), run(model, feed)) == 0
    assert tolerance(Subject(model).network) > 0
