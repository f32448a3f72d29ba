"""Operators that are written as the ones they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build
from oracles import Subject, outputs_match

from onnxprune.cost import tensor_shapes
from onnxprune.decompose import take_apart
from onnxprune.model import infer_shapes
from onnxprune.stand_ins import with_stand_ins

CLOSE = 1e-6


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("com.microsoft FusedGemm", ["Gemm", "Relu", "Gemm"]),
        ("com.microsoft FusedMatMul", ["MatMul", "Relu", "MatMul"]),
        (
            "com.microsoft FusedMatMul of a transposed activation",
            ["Conv", "Relu", "Transpose", "MatMul"],
        ),
        ("Compress", ["Conv", "Gather", "Conv", "Conv", "Add"]),
        ("ImageScaler", ["Mul", "Add", "Conv", "Relu", "Conv"]),
        ("SimplifiedLayerNormalization, opset 23", ["Conv", "RMSNormalization", "Conv"]),
        (
            "SimplifiedLayerNormalization",
            ["Conv", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Conv"],
        ),
        (
            "LayerNormalization, opset 13",
            [
                *("Conv", "ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"),
                *("Add", "Conv"),
            ],
        ),
        (
            "com.microsoft Attention",
            ["MatMul", "Add", "Split", "MultiHeadAttention", "MatMul"],
        ),
    ],
)
def test_what_is_left_is_what_the_numerics_know(name: str, left: list[str]) -> None:
    model = MICRO_MODELS[name]()
    before = model.SerializeToString(deterministic=True)
    assert ops(take_apart(model)) == left
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["Conv", "LayerNormalization", "MeanVarianceNormalization"])
def test_a_model_that_needs_none_stays(name: str) -> None:
    model = MICRO_MODELS[name]()
    assert ops(take_apart(model)) == ops(model)
    assert take_apart(MICRO_MODELS["LayerNormalization"]()).graph.initializer == (
        MICRO_MODELS["LayerNormalization"]().graph.initializer
    )


@pytest.mark.parametrize(
    "nodes",
    [
        'h = com.microsoft.FusedGemm <activation="Gelu"> (c, w3)',
        'h = com.microsoft.FusedGemm <activation="LeakyRelu"> (c, w3)',
        "h = com.microsoft.FusedMatMul <transA=1> (strange, c)",
        "h, m = LayerNormalization (c, k)",
        "h = LayerNormalization (half, k)",
        "h = SimplifiedLayerNormalization <axis=1> (strange, k)",
        "h = Compress <axis=1> (c, which)",
        "h = Compress (c, k)",
        "h = com.microsoft.Attention <num_heads=4> (c, w3, b1, mask)",
        "h = com.microsoft.Attention <num_heads=4> (c, c, b1)",
        "h, p = com.microsoft.Attention <num_heads=4> (c, w3, b1)",
        "h = com.microsoft.MultiHeadAttention <num_heads=4> (strange, strange, c, b1)",
        "h = com.microsoft.MultiHeadAttention <num_heads=4> (c, , , b1)",
    ],
)
def test_what_is_not_known_well_enough_stays_whole(nodes: str) -> None:
    model = build(
        f"{CONV_IN} strange = com.example.Strange (c) half = Cast <to=10> (c) {nodes} {CONV_OUT}",
        CONVS | {"w3": (8, 24), "k": (8,), "mask": (1, 1, 8, 8)},
        inputs="float[N,3,8,8] x, bool[8] which",
        opset=13,
    )
    assert ops(take_apart(model)) == ops(model)


def test_a_layer_normalization_from_the_second_axis_on() -> None:
    model = build(
        f"{CONV_IN} n = Neg (c) h = LayerNormalization <axis=2> (n, k, k) {CONV_OUT}",
        CONVS | {"k": (8, 8)},
        opset=16,
    )
    parts = take_apart(model)
    means = [node for node in parts.graph.node if node.op_type == "ReduceMean"]
    assert [list(node.attribute[0].ints) for node in means] == [[-2, -1], [-2, -1]]
    outputs_match(parts, model, CLOSE, np.random.default_rng(0))


def text_of(extents: Sequence[int]) -> str:
    return ",".join(map(str, extents))


@pytest.mark.parametrize("batch", [(5,), (5, 6)])
@pytest.mark.parametrize("turns", list(product((0, 1), repeat=4)))
def test_every_way_to_transpose_a_fused_matmul(
    batch: tuple[int, ...], turns: tuple[int, int, int, int], rng: np.random.Generator
) -> None:
    left, right, left_batch, right_batch = turns

    def shape(rows: int, columns: int, turn: int, first: int) -> tuple[int, ...]:
        rows, columns = (columns, rows) if turn else (rows, columns)
        return (rows, *batch, columns) if first else (*batch, rows, columns)

    flags = f"transA={left}, transB={right}, transBatchA={left_batch}, transBatchB={right_batch}"
    a, b = shape(3, 4, left, left_batch), shape(4, 2, right, right_batch)
    model = build(
        f"y = com.microsoft.FusedMatMul <{flags}, alpha=0.5> (a, b)",
        {},
        inputs=f"float[{text_of(a)}] a, float[{text_of(b)}] b",
        outputs=f"float[{','.join('PQRS'[: len(a)])}] y",
    )
    parts = take_apart(model)
    assert "FusedMatMul" not in ops(parts)
    assert tensor_shapes(infer_shapes(model))["y"] == (*batch, 3, 2)
    outputs_match(parts, model, CLOSE, rng)


def test_names_and_parts_are_unique() -> None:
    model = MICRO_MODELS["com.microsoft Attention"]()
    for place, node in enumerate(model.graph.node):
        node.name = f"node {place}"
    model.graph.node[1].input[0] = model.graph.node[0].output[0] = "h/projected"
    parts = take_apart(model)
    onnx.checker.check_model(parts, full_check=True)
    assert [node.name for node in parts.graph.node][:2] == ["node 0/MatMul_0", "node 0/Add_1"]


# --- what onnxruntime makes of a model ----------------------------------------------------------

FUSIBLE = [
    name
    for name in MICRO_MODELS
    if name.startswith(("FFN", "ConvNeXt", "attention", "Attention", "com.microsoft", "squeeze"))
]


@pytest.mark.parametrize("name", FUSIBLE)
def test_a_model_that_onnxruntime_has_optimised_has_the_same_groups(
    name: str, tmp_path: Path
) -> None:
    model = MICRO_MODELS[name]()
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    optimised = Subject(onnx.load(tmp_path / "optimised.onnx"))
    expected = sorted(group.size for group in Subject(model).network.groups)
    assert sorted(group.size for group in optimised.network.groups) == expected


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("com.microsoft SkipLayerNormalization and its sum", {"n": (2, 8, 7), "u": (2, 8, 7)}),
        ("com.microsoft MultiHeadAttention, narrow values", {"h": (2, 7, 20)}),
        ("com.microsoft MultiHeadAttention of another sequence", {"h": (2, 7, 24)}),
        ("com.microsoft BiasGelu", {"h": (2, 7, 12)}),
    ],
)
def test_shapes_are_known_behind_operators_of_onnxruntime(
    name: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    model = MICRO_MODELS[name]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    inferred = tensor_shapes(infer_shapes(model))
    assert {name: inferred[name] for name in shapes} == shapes


def test_a_layer_normalization_needs_a_stand_in_before_it_was_standard() -> None:
    new = MICRO_MODELS["LayerNormalization"]()
    assert with_stand_ins(new) is new
    assert "Identity" in ops(with_stand_ins(MICRO_MODELS["LayerNormalization, opset 13"]()))


def test_an_attention_without_keys_or_a_transposed_product_without_einsum_stays_unknown() -> None:
    packed = build(
        "h = com.microsoft.MultiHeadAttention <num_heads=2> (x) y = Relu (h)",
        {},
        inputs="float[N,7,2,3,4] x",
        outputs="float[N,7,8] y",
    )
    assert "h" not in tensor_shapes(infer_shapes(packed))
    old = build(
        "h = com.microsoft.FusedMatMul <transA=1> (x, x) y = Relu (h)",
        {},
        inputs="float[3,4] x",
        outputs="float[A,B] y",
        opset=11,
    )
    assert "h" not in tensor_shapes(infer_shapes(old))
