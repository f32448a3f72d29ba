"""Costs as functions of the kept counts equal a recount on the cut model."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build
from oracles import Subject, random_keeps

from onnxprune.canonical import canonicalise
from onnxprune.cost import Multilinear, cost_model, counted_macs, parameter_count, tensor_shapes
from onnxprune.counts import Count
from onnxprune.groups import find_groups
from onnxprune.model import infer_shapes
from onnxprune.rewrite import apply

SIZE = 9
Shapes = dict[str, list[int]]


def input_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {
        value.name: tuple(
            d.dim_value or (1 if axis == 0 else SIZE)
            for axis, d in enumerate(value.type.tensor_type.shape.dim)
        )
        for value in model.graph.input
    }


def macs_of(node: onnx.NodeProto, shapes: Shapes, weights: Shapes) -> int:
    """MACs of one node."""
    if node.op_type in ("Conv", "DeformConv"):
        # One multiplication per output element and weight of its filter.
        return int(np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:]))
    if node.op_type == "ConvTranspose":
        # One multiplication per input element and weight that spreads it.
        return int(np.prod(shapes[node.input[0]]) * np.prod(weights[node.input[1]][1:]))
    if node.op_type in ("GRU", "LSTM", "RNN"):
        # At every step one multiplication per weight of all gates and directions.
        steps = np.prod(shapes[node.input[0]][:2])
        return int(steps * sum(np.prod(weights[name]) for name in node.input[1:3]))
    if node.op_type in ("Attention", "MultiHeadAttention"):
        pairs = shapes[node.input[1]][-2]  # every query meets every key, and every value
        return int(np.prod(shapes[node.input[0]]) + np.prod(shapes[node.output[0]])) * pairs
    if node.op_type == "MatMul" and node.input[1] not in weights:
        return int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
    if node.op_type in ("Gemm", "MatMul"):
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return int(np.prod(shapes[node.output[0]])) * weights[node.input[1]][int(transposed)]
    return 0


def recount(model: onnx.ModelProto) -> tuple[int, int]:
    """(MACs, parameters) of a model for one sample, from its protobuf alone."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        for dim, extent in zip(
            value.type.tensor_type.shape.dim, input_shapes(model)[value.name], strict=True
        ):
            dim.dim_value = extent
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    fixed = infer_shapes(fixed)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*fixed.graph.value_info, *fixed.graph.output, *fixed.graph.input)
    }
    weights = {t.name: list(t.dims) for t in fixed.graph.initializer}
    macs = sum(macs_of(node, shapes, weights) for node in fixed.graph.node)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    params = sum(int(np.prod(t.dims)) for t in fixed.graph.initializer if t.data_type in floats)
    return macs, params


UNCOUNTED = {"Resize to a factor of the size"}
"""Models that compute a size in floating point, which shape inference does not follow."""
SMALL = 600
"""Bytes of indices, shapes and names that a cut changes."""


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_costs_equal_a_recount_before_and_after_a_cut(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = Subject(MICRO_MODELS[name]())
    costs = cost_model(micro.network, micro.canonical, input_shapes(micro.model))
    assert bool(costs.uncounted) == (name in UNCOUNTED)
    if costs.uncounted:
        return
    full = np.array([group.size for group in micro.network.groups], float)
    assert (costs.macs(full), costs.params(full)) == pytest.approx(recount(micro.canonical))
    assert sum(costs.node_macs.values()) == pytest.approx(costs.macs(full))
    for _ in range(2):
        keeps = random_keeps(micro.network, rng)
        counts = np.array([keeps[group.name].size for group in micro.network.groups], float)
        pruned = apply(micro.model, micro.plan(keeps))
        assert (costs.macs(counts), costs.params(counts)) == pytest.approx(recount(pruned))
        assert parameter_count(pruned) == recount(pruned)[1]
        assert counted_macs(pruned, input_shapes(micro.model)) == pytest.approx(recount(pruned)[0])
        saved = costs.bytes(full) - costs.bytes(counts)
        assert micro.canonical.ByteSize() - pruned.ByteSize() == pytest.approx(saved, abs=SMALL)


def test_costs_of_a_convolution_by_hand() -> None:
    micro = Subject(MICRO_MODELS["Conv"]())
    costs = cost_model(micro.network, micro.canonical, {"x": (1, 3, 8, 8)})
    counts = np.array([[8.0], [5.0]])
    assert costs.macs(counts).tolist() == [
        8 * 3 * 9 * 64 + 4 * 8 * 9 * 36,
        5 * 3 * 9 * 64 + 4 * 5 * 9 * 36,
    ]
    assert costs.params(counts).tolist() == [
        8 * 28 + 4 * 8 * 9 + 4,
        5 * 28 + 4 * 5 * 9 + 4,
    ]


def test_products_of_activations_count_as_well() -> None:
    model = build(
        "t = Transpose <perm=[0,2,1]> (x) a = MatMul(x, t) y = MatMul(a, w)",
        {"w": (5, 7)},
        inputs="float[N,5,6] x",
        outputs="float[N,5,7] y",
    )
    canonical = canonicalise(model)
    costs = cost_model(find_groups(canonical), canonical, {"x": (1, 5, 6)})
    assert costs.macs(np.empty(0)) == 5 * 5 * 6 + 5 * 5 * 7


def test_weights_in_a_constant_node_are_parameters() -> None:
    model = build(
        f"{CONV_IN} k = Constant <value = float[2] {{1.0, 2.0}}> () h = Relu(c) {CONV_OUT}", CONVS
    )
    assert parameter_count(model) == recount(model)[1] + 2


def test_a_multilinear_function_is_its_terms() -> None:
    one = Count(1.0, np.array([2.0, 0.0]))
    two = Count(0.0, np.array([0.0, 3.0]))
    ten = Count(10.0, np.zeros(2))
    cost = Multilinear.of([(ten, one, two), (two,)], 2)
    counts = np.array([[1.0, 1.0], [2.0, 5.0]])
    assert cost(counts).tolist() == [10 * 3 * 3 + 3, 10 * 5 * 15 + 15]
    assert cost.scaled(0.5)(counts).tolist() == [46.5, 382.5]
    assert Multilinear.of([], 2)(counts).tolist() == [0, 0]


def test_only_known_shapes_are_listed() -> None:
    model = build("y = Relu(x)", {"w": (2, 3)}, outputs="float[N,3,8,8] y")
    assert tensor_shapes(model) == {"w": (2, 3)}
