"""An Einsum that is a product of matrices becomes a MatMul; others stay."""

from __future__ import annotations

import micro_graphs
import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS
from onnx import TensorProto, helper, numpy_helper
from oracles import EPS, distance, run

from onnxprune.canonical import canonicalise

EXTENTS = dict(zip("abchijkno", (2, 3, 4, 5, 2, 3, 4, 2, 3), strict=True))


def ops(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def canonical_einsum(
    equation: str, shapes: list[tuple[int, ...]], constant: int | None, opset: int
) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one Einsum, its canonical form, and an input; one operand may be constant."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    names = [f"x{place}" for place in range(len(arrays))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    rank = np.einsum(equation, *arrays).ndim
    fed = {
        n: a for place, (n, a) in enumerate(zip(names, arrays, strict=True)) if place != constant
    }
    graph = helper.make_graph(
        [node],
        "einsum",
        # The first extent is dynamic.
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [f"{n}.0", *a.shape[1:]])
            for n, a in fed.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [] if constant is None else [numpy_helper.from_array(arrays[constant], names[constant])],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model, canonicalise(model), fed


def shapes_of(equation: str) -> list[tuple[int, ...]]:
    operands = equation.replace("...", "").replace(" ", "").partition("->")[0].split(",")
    extra = [(2, 3) if "..." in part else () for part in equation.partition("->")[0].split(",")]
    return [
        (*lead, *(EXTENTS[c] for c in axes)) for lead, axes in zip(extra, operands, strict=True)
    ]


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize(
    ("equation", "constant"),
    [
        ("ab,bc->ac", 1),
        ("ab,bc->ca", 1),
        ("ab,bc", None),
        ("abc,cij->abij", 1),
        ("abc,bci->ai", 1),
        ("abc,icb->ai", 1),
        ("bc,abc->ab", 1),
        ("bc,abi->aci", 0),
        ("...b,bc->...c", 1),
        ("...ab,...bc->...ac", None),
        ("abij,abkj->abik", None),
        ("abij,kbaj->kiba", None),
        ("ab,abc->ac", None),
        ("abc,ab->ac", None),
        ("ab,ab->a", None),
        ("abc->cab", None),
    ],
)
def test_products_of_matrices_are_matmuls(equation: str, constant: int | None, opset: int) -> None:
    shapes = shapes_of(equation)
    model, canonical, feed = canonical_einsum(equation, shapes, constant, opset)
    assert "Einsum" not in ops(canonical)
    assert distance(run(canonical, feed), run(model, feed)) < 16 * EPS


@pytest.mark.parametrize(
    "equation",
    ["aa->a", "ab->a", "a,b->ab", "abc,abc->a", "ab,ac->a", "ab,bc,ci->ai", "aab,bc->ac"],
)
def test_others_stay(equation: str) -> None:
    model, canonical, feed = canonical_einsum(equation, shapes_of(equation), None, 17)
    assert ops(canonical) == {"Einsum"}
    assert distance(run(canonical, feed), run(model, feed)) < 16 * EPS


def test_weights_become_matrices() -> None:
    canonical = canonicalise(MICRO_MODELS["Einsum to heads and back"]())
    shapes = {t.name: list(t.dims) for t in canonical.graph.initializer}
    products = [node for node in canonical.graph.node if node.op_type == "MatMul"]
    assert [shapes[node.input[1]] for node in products] == [[6, 8], [8, 6], [6, 7], [7, 5]]
    for name in micro_graphs.NAMES:
        assert "Einsum" not in ops(canonicalise(MICRO_MODELS[name]()))
