"""Shapes behind operators that onnx has no inference for."""

from __future__ import annotations

from micro_models import MICRO_MODELS

from onnxprune.cost import tensor_shapes
from onnxprune.model import infer_shapes
from onnxprune.stand_ins import with_stand_ins


def test_shapes_are_known_behind_a_group_normalization_and_the_nodes_stay() -> None:
    model = MICRO_MODELS["GroupNormalization"]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    before = model.SerializeToString(deterministic=True)
    inferred = infer_shapes(model)
    assert tensor_shapes(inferred)["h"] == (2, 8, 8, 8)
    assert list(inferred.graph.node) == list(model.graph.node)
    assert model.SerializeToString(deterministic=True) == before


def test_a_model_that_needs_none_is_the_same_object() -> None:
    model = MICRO_MODELS["Conv"]()
    assert with_stand_ins(model) is model
    assert with_stand_ins(MICRO_MODELS["GroupNormalization"]()).graph.node[1].op_type == "Identity"
