"""What runs the original runs the pruned model: no operator, type or opset comes in unaccounted."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS
from oracles import Subject, random_keeps, random_recovery, weights_of

from onnxprune.errors import UnsupportedModelError
from onnxprune.model import load
from onnxprune.rewrite import apply

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
OWN = [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem == "vit_digits" else ())
    for path in sorted((HERE.parent / "models").glob("*.onnx"))
]
FOUND = [p for folder in ("models", "corpus") for p in sorted((SHARED / folder).glob("*.onnx"))]
QUANTISED = {"models-shufflenet-v2-12-int8", "sparseml-detectionmodel"}
for module in HERE.glob("micro_*.py"):  # each enters its models
    importlib.import_module(module.stem)

ACTIVATIONS = {"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"}
NORM = {"Add", "Div", "Mul", "Pow", "ReduceMean", "Sqrt", "Sub"}
REPLACED: dict[str, set[str]] = {
    "Attention": {"MultiHeadAttention", "Split"},
    "Compress": {"Gather"},
    "Einsum": {"MatMul", "Reshape", "Squeeze", "Transpose", "Unsqueeze"},
    "FusedConv": {"Conv", *ACTIVATIONS},
    "FusedGemm": {"Gemm", *ACTIVATIONS},
    "FusedMatMul": {"MatMul", "Transpose"},
    "Gather": {"Split"},
    "ImageScaler": {"Add", "Mul"},
    "LayerNormalization": NORM,
    "ScatterND": {"Concat"},
    "Shape": {"Concat", "Gather"},
    "SimplifiedLayerNormalization": {"RMSNormalization", *NORM},
    "Slice": {"Split"},
    "Transpose": {"Gather"},
}
"""Operator of the original -> what may stand in its place: a layout that a fused one forbids,
picked channels where a shuffle was, a computed shape where a fixed one was."""

BIAS = {"Add"}
"""What recovery adds: the mean of what is gone."""

INDICES = {onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
"""Types of constants that are shapes, indices and masks, which a rewritten graph may need."""


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def operators(model: onnx.ModelProto) -> set[str]:
    held = {node.op_type for function in model.functions for node in function.node}
    return held | {node.op_type for node in nodes(model.graph)}


def types(model: onnx.ModelProto) -> set[int]:
    tensors = [a.t for n in nodes(model.graph) for a in n.attribute if a.HasField("t")]
    return {tensor.data_type for tensor in (*model.graph.initializer, *tensors)}


def check(model: onnx.ModelProto) -> set[str]:
    """Cut half of every group, with new weights; return the operators that came in."""
    subject, rng = Subject(model), np.random.default_rng(0)
    keeps = random_keeps(subject.network, rng, 0.5)
    recovered = random_recovery(subject, subject.alive(keeps), rng)
    pruned = apply(model, subject.plan(keeps), weights_of(recovered))
    assert list(pruned.opset_import) == list(model.opset_import)
    assert pruned.ir_version == model.ir_version
    assert not pruned.functions
    before = operators(model)
    allowed = BIAS.union(*(REPLACED.get(op, set()) for op in before))
    added = operators(pruned) - before
    assert added <= allowed
    assert types(pruned) - types(model) <= INDICES
    return added


@pytest.mark.parametrize("path", OWN)
def test_nothing_comes_into_plain_networks(path):
    assert check(load(path)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MICRO_MODELS))
def test_what_comes_into_every_pattern_is_accounted_for(name):
    check(MICRO_MODELS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_comes_into_networks_of_others_is_accounted_for(path):
    if path.stem in QUANTISED:
        with pytest.raises(UnsupportedModelError, match="quantised"):
            check(load(path))
        return
    check(load(path))
