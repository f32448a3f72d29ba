"""The oracles reject what is wrong: they are only worth what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from micro_models import MICRO_MODELS
from onnx import numpy_helper
from oracles import (
    Subject,
    distance,
    masked,
    outputs_match,
    random_keeps,
    random_recovery,
    scattered,
    structure_ok,
    tolerance,
    weights_of,
)

from onnxprune.errors import OnnxPruneError
from onnxprune.rewrite import apply
from onnxprune.rules import registry
from onnxprune.rules.registry import Facts

REJECTED = (
    AssertionError,
    OnnxPruneError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)


def agrees(micro: Subject, rng: np.random.Generator, keeps: dict[str, np.ndarray]) -> None:
    pruned = apply(micro.model, micro.plan(keeps))
    structure_ok(pruned, micro.model)
    outputs_match(pruned, masked(micro, micro.alive(keeps)), tolerance(micro.network), rng)


def halves(micro: Subject) -> dict[str, np.ndarray]:
    """The odd units of every group: a keep that no off-by-one error leaves unharmed."""
    return {group.name: np.arange(1, group.size, 2) for group in micro.network.groups}


@pytest.mark.parametrize("name", ["Conv", "Gemm", "residual", "Concat"])
def test_one_perturbed_weight_is_seen(name: str, rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS[name]())
    keeps = random_keeps(micro.network, rng, 0.5)
    pruned = apply(micro.model, micro.plan(keeps))
    tensor = next(t for t in pruned.graph.initializer if len(t.dims) > 1)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    reference = masked(micro, micro.alive(keeps))
    with pytest.raises(AssertionError, match="outputs differ"):
        outputs_match(pruned, reference, tolerance(micro.network), rng)


def test_another_keep_of_the_same_size_is_seen(rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS["Conv"]())
    pruned = apply(micro.model, micro.plan({"Conv_0": np.array([0, 2, 5])}))
    reference = masked(micro, micro.alive({"Conv_0": np.array([0, 2, 6])}))
    with pytest.raises(AssertionError, match="outputs differ"):
        outputs_match(pruned, reference, tolerance(micro.network), rng)


def test_wrong_recovered_bias_is_seen(rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS["MatMul and bias"]())
    keeps = random_keeps(micro.network, rng, 0.5)
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    pruned = apply(micro.model, micro.plan(keeps), weights_of(recovered))
    name, (weight, bias) = next(iter(recovered.items()))
    reference = scattered(micro, micro.alive(keeps), {name: (weight, bias * 1.001)})
    with pytest.raises(AssertionError, match="outputs differ"):
        outputs_match(pruned, reference, tolerance(micro.network), rng)


def without_parameters(node: gs.Node, facts: Facts) -> None:
    facts.couple(facts.axis(node.inputs[0], 1), facts.axis(node.outputs[0], 1))


def reversed_channels(node: gs.Node, facts: Facts) -> None:
    facts.couple(facts.axis(node.inputs[0], 1)[::-1], facts.axis(node.outputs[0], 1))


def without_bias(node: gs.Node, facts: Facts) -> None:
    full = registry._RULES["", "Relu"]
    full(node, facts)


def first_input_twice(node: gs.Node, facts: Facts) -> None:
    """A Concat that believes both inputs are the first one's channels."""
    y = node.outputs[0]
    slots, offset = facts.axis(y, 1), 0
    for tensor in node.inputs:
        own = facts.axis(tensor, 1)
        facts.couple(own, np.roll(slots, -1)[offset : offset + own.size])
        offset += own.size


@pytest.mark.parametrize(
    ("op", "mutant", "name"),
    [
        ("BatchNormalization", without_parameters, "BatchNormalization"),
        ("Relu", reversed_channels, "Conv"),
        ("PRelu", without_bias, "PRelu"),
        ("Concat", first_input_twice, "Concat"),
        ("MaxPool", reversed_channels, "MaxPool"),
    ],
)
def test_mutated_rules_are_seen(
    op: str,
    mutant: Callable[[gs.Node, Facts], None],
    name: str,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agrees(micro := Subject(MICRO_MODELS[name]()), rng, halves(micro))
    monkeypatch.setitem(registry._RULES, ("", op), mutant)
    wrong = Subject(micro.model)
    with pytest.raises(REJECTED):
        agrees(wrong, rng, halves(wrong))


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("Split", "Split unequal"),
        ("Conv", "Conv depthwise"),
        ("Conv", "Conv depthwise, multiplier 2"),
        ("Slice", "Slice"),
        ("Pad", "padding shortcut, opset 9"),
        ("Reshape", "Reshape"),
        ("Resize", "Resize sizes"),
        ("ConvTranspose", "ConvTranspose depthwise"),
        ("Expand", "Expand"),
        ("Gather", "Gather"),
        ("GroupNormalization", "GroupNormalization"),
    ],
)
def test_missing_fixups_are_seen(
    op: str, name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    micro = Subject(MICRO_MODELS[name]())
    keeps = random_keeps(micro.network, rng, 0.4)
    agrees(micro, rng, keeps)
    monkeypatch.delitem(registry._FIXUPS, ("", op))
    with pytest.raises(REJECTED):
        agrees(micro, rng, keeps)


def test_structure_refuses_a_changed_interface() -> None:
    original = MICRO_MODELS["Conv"]()
    changed = onnx.ModelProto.FromString(original.SerializeToString())
    changed.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "M"
    structure_ok(original, original)
    with pytest.raises(AssertionError):
        structure_ok(changed, original)


def test_structure_refuses_contradicting_shapes() -> None:
    original = MICRO_MODELS["Gemm"]()
    changed = onnx.ModelProto.FromString(original.SerializeToString())
    weight = next(t for t in changed.graph.initializer if t.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(np.ones((8, 5), np.float32), "w2"))
    with pytest.raises(onnx.shape_inference.InferenceError):
        structure_ok(changed, original)


def test_distance_is_infinite_for_other_shapes_and_for_nan() -> None:
    one = np.ones((2, 2), np.float32)
    assert distance([one], [one]) == 0
    assert distance([one], [np.ones((2, 1), np.float32)]) == float("inf")
    assert distance([one * np.nan], [one]) == float("inf")
    assert distance([one * 1.5], [one * 2]) == pytest.approx(0.25)
