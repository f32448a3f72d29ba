"""FusedConv is taken apart where its activation is known, and stays where it is not."""

from __future__ import annotations

import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build

from onnxprune.canonical import canonicalise
from onnxprune.fused import split_fused
from onnxprune.groups import find_groups

FUSED = [name for name in MICRO_MODELS if name.startswith("FusedConv")]


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", FUSED)
def test_nothing_fused_is_left_and_the_argument_stays(name: str) -> None:
    model = MICRO_MODELS[name]()
    before = model.SerializeToString(deterministic=True)
    parts = split_fused(model)
    assert model.SerializeToString(deterministic=True) == before
    assert "FusedConv" not in ops(parts)
    assert ops(parts).count("Conv") == 3
    assert all("activation" not in a.name for node in parts.graph.node for a in node.attribute)


def test_the_addend_comes_before_the_activation() -> None:
    parts = split_fused(MICRO_MODELS["FusedConv and a sum"]())
    assert ops(parts) == ["Conv", "Relu", "Conv", "Add", "LeakyRelu", "Conv"]
    network = find_groups(canonicalise(MICRO_MODELS["FusedConv and a sum"]()))
    (group,) = network.groups
    assert group.producers == ("Conv_0", "Conv_2")  # the sum couples both


def fused(attributes: str) -> onnx.ModelProto:
    nodes = f"h = com.microsoft.FusedConv <{attributes}> (c, w3)"
    return build(f"{CONV_IN} {nodes} {CONV_OUT}", CONVS | {"w3": (8, 8, 1, 1)})


@pytest.mark.parametrize(
    "attributes",
    ['activation="Swish"', 'activation="Clip", activation_params=[0.0]'],
    ids=["unknown", "wrong number of parameters"],
)
def test_an_activation_that_is_not_known_stays_and_freezes(attributes: str) -> None:
    model = fused(attributes)
    assert split_fused(model) is model
    reasons = {f.producer: f.reason for f in find_groups(canonicalise(model)).frozen}
    assert reasons["Conv_0"] == "no channel rule for FusedConv ('FusedConv_1')"


def test_names_that_are_taken_are_not_given_again() -> None:
    model = fused('activation="Relu"')
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "h/conv"
    onnx.checker.check_model(split_fused(model), full_check=True)


def test_a_model_without_any_is_the_same_object() -> None:
    model = MICRO_MODELS["Conv"]()
    assert split_fused(model) is model
