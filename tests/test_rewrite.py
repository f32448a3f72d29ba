"""``apply``: what it refuses, what it leaves alone, and that it is repeatable."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build
from onnx import helper, numpy_helper
from oracles import (
    Subject,
    outputs_match,
    random_keeps,
    random_recovery,
    scattered,
    tolerance,
    weights_of,
)

from onnxprune.canonical import canonicalise
from onnxprune.errors import PlanMismatchError
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.rewrite import Cut, apply, digest, kept_channels


@pytest.fixture
def micro() -> Subject:
    return Subject(MICRO_MODELS["residual"]())


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_keeping_everything_writes_the_canonical_model(name: str) -> None:
    micro = Subject(MICRO_MODELS[name]())
    everything = {group.name: np.arange(group.size) for group in micro.network.groups}
    identity = apply(micro.model, micro.plan(everything))
    assert identity.SerializeToString() == micro.canonical.SerializeToString()
    assert apply(micro.model, micro.plan({})) == identity


def test_a_model_without_groups_comes_out_whole(rng: np.random.Generator) -> None:
    model = build("y = Conv <group=3> (x, w)", {"w": (3, 1, 3, 3)}, outputs="float[N,3,6,6] y")
    whole = apply(model, Plan(digest(model), ()))
    outputs_match(whole, model, 0.0, rng)


def test_the_same_plan_gives_the_same_bytes(micro: Subject, rng: np.random.Generator) -> None:
    keeps = random_keeps(micro.network, rng)
    recovered = weights_of(random_recovery(micro, micro.alive(keeps), rng))
    before = micro.model.SerializeToString(deterministic=True)
    one = apply(micro.model, micro.plan(keeps), recovered)
    two = apply(micro.model, micro.plan(keeps), recovered)
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    assert micro.model.SerializeToString(deterministic=True) == before


def test_weights_are_not_changed_by_writing_them(micro: Subject, rng: np.random.Generator) -> None:
    keeps = random_keeps(micro.network, rng, 0.5)
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    copies = {name: (w.copy(), b.copy()) for name, (w, b) in recovered.items()}
    apply(micro.model, micro.plan(keeps), weights_of(recovered))
    for name, (weight, bias) in recovered.items():
        assert np.array_equal(weight, copies[name][0])
        assert np.array_equal(bias, copies[name][1])


def test_recovered_weights_take_the_type_of_the_model(rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS["Conv without bias"]())
    keeps = {"Conv_0": np.array([0, 2])}
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    doubles = {n: (w.astype(np.float64), b.astype(np.float64)) for n, (w, b) in recovered.items()}
    pruned = apply(micro.model, micro.plan(keeps), weights_of(doubles))
    assert {t.data_type for t in pruned.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert pruned == apply(micro.model, micro.plan(keeps), weights_of(recovered))


def test_a_zero_bias_adds_no_node(rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS["MatMul"]())
    keeps = {"MatMul_0": np.array([0, 2])}
    ((name, (weight, bias)),) = random_recovery(micro, micro.alive(keeps), rng).items()
    for value, ops in (
        (bias * 0, ["MatMul", "Relu", "MatMul"]),
        (bias, ["MatMul", "Relu", "MatMul", "Add"]),
    ):
        pruned = apply(micro.model, micro.plan(keeps), weights_of({name: (weight, value)}))
        assert [node.op_type for node in pruned.graph.node] == ops


BEHIND = {"w1": (6, 10), "w2": (10, 5), "c": (5,), "wide": (1, 7, 5), "one": (1,), "x5": (6, 5)}


@pytest.mark.parametrize(
    ("behind", "adds"),
    [
        ("y = Add (m, c)", 1),
        ("y = Add (c, m)", 1),
        ("y = Add (m, wide)", 1),
        ("y = Add (m, one)", 2),
        ("n = MatMul (x, x5) y = Add (m, n)", 2),
        ("a = Add (m, c) b = Tanh (m) y = Mul (a, b)", 2),
        ("y = Sub (m, c)", 1),
    ],
)
def test_a_bias_goes_into_the_add_behind(behind: str, adds: int, rng: np.random.Generator) -> None:
    used = {name: shape for name, shape in BEHIND.items() if name[0] == "w" or name in behind}
    used = {name: shape for name, shape in used.items() if name != "wide" or name in behind}
    model = build(
        f"a0 = MatMul (x, w1) h = Relu (a0) m = MatMul (h, w2) {behind}",
        used,
        inputs="float[N,7,6] x",
        outputs="float[N,7,5] y",
    )
    micro = Subject(model)
    keeps = {"MatMul_0": np.array([0, 2, 3])}
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    pruned = apply(model, micro.plan(keeps), weights_of(recovered))
    assert sum(node.op_type == "Add" for node in pruned.graph.node) == adds
    reference = scattered(micro, micro.alive(keeps), recovered)
    outputs_match(pruned, reference, tolerance(micro.network), rng)


def test_a_product_that_is_an_output_keeps_its_own_bias(rng: np.random.Generator) -> None:
    model = build(
        "a = MatMul (x, w1) h = Relu (a) m = MatMul (h, w2) y = Add (m, c)",
        {name: BEHIND[name] for name in ("w1", "w2", "c")},
        inputs="float[N,7,6] x",
        outputs="float[N,7,5] y, float[N,7,5] m",
    )
    micro = Subject(model)
    keeps = {"MatMul_0": np.array([0, 2, 3])}
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    pruned = apply(model, micro.plan(keeps), weights_of(recovered))
    assert sum(node.op_type == "Add" for node in pruned.graph.node) == 2
    reference = scattered(micro, micro.alive(keeps), recovered)
    outputs_match(pruned, reference, tolerance(micro.network), rng)


def test_a_plan_for_another_model_is_refused(micro: Subject) -> None:
    other = MICRO_MODELS["Conv"]()
    with pytest.raises(PlanMismatchError, match="made for another model"):
        apply(other, micro.plan({}))


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Keep("nobody", (0,), 8)], "cuts group 'nobody' of 8 units, which the model lacks"),
        ([Keep("Conv_0", (0,), 9)], "cuts group 'Conv_0' of 9 units"),
        ([Keep("Conv_0", (0,), 8), Keep("Conv_0", (1,), 8)], "cuts group 'Conv_0' twice"),
    ],
)
def test_edits_that_do_not_fit_are_refused(micro: Subject, edits: list[Keep], message: str) -> None:
    with pytest.raises(PlanMismatchError, match=message):
        apply(micro.model, Plan(micro.digest, tuple(edits)))


def test_unequal_parts_are_refused() -> None:
    micro = Subject(MICRO_MODELS["Conv grouped"]())
    read = micro.network.groups[0]
    with pytest.raises(PlanMismatchError, match=r"equal counts in its 2 parts, not \[2, 1\]"):
        apply(micro.model, micro.plan({read.name: np.array([0, 1, 4])}))


def test_weights_that_do_not_fit_are_refused(micro: Subject, rng: np.random.Generator) -> None:
    keeps = {"Conv_0": np.arange(4)}
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    with pytest.raises(PlanMismatchError, match="have shapes"):
        apply(micro.model, micro.plan({"Conv_0": np.arange(5)}), weights_of(recovered))
    name, (weight, bias) = next(iter(recovered.items()))
    short = Weights({name: (weight, bias[:-1])})
    with pytest.raises(PlanMismatchError, match="have shapes"):
        apply(micro.model, micro.plan(keeps), short)
    stray = Weights({"nobody": next(iter(recovered.values()))})
    with pytest.raises(PlanMismatchError, match="nobody"):
        apply(micro.model, micro.plan(keeps), stray)


# --- what a cut leaves --------------------------------------------------------------------------


def test_kept_channels_and_cut_agree_with_the_plan(micro: Subject) -> None:
    plan = micro.plan({"Conv_0": np.array([1, 6])})
    alive = kept_channels(micro.network, plan)
    stream = micro.network.groups[0]
    assert np.flatnonzero(alive[stream.channels]).tolist() == [1, 6]
    assert alive.sum() == alive.size - 6
    cut = Cut(micro.network, alive)
    reader = micro.network.consumers[stream.consumers[0]]
    x = reader.node.inputs[0]
    assert cut.entries(x, 1).tolist() == [1, 6]
    assert cut.is_cut(x, 1)
    assert not cut.is_cut(x, 0)
    assert not cut.is_cut(micro.network.graph.inputs[0], 1)
    assert [part.tolist() for part in cut.inputs(reader)] == [[1, 6]]


def test_inputs_of_a_grouped_consumer_are_counted_within_each_part() -> None:
    micro = Subject(MICRO_MODELS["Conv grouped"]())
    read = micro.network.groups[0]
    alive = kept_channels(micro.network, micro.plan({read.name: np.array([1, 3, 4, 6])}))
    reader = micro.network.consumers[read.consumers[0]]
    parts = Cut(micro.network, alive).inputs(reader)
    assert [part.tolist() for part in parts] == [[1, 3], [0, 2]]


# --- the digest ---------------------------------------------------------------------------------


def test_the_digest_sees_graph_and_weights_and_nothing_else() -> None:
    model = build(f"{CONV_IN} h = Relu(c) {CONV_OUT}", CONVS)
    original = digest(model)
    noted = onnx.ModelProto.FromString(model.SerializeToString())
    helper.set_model_props(noted, {"author": "someone"})
    noted.doc_string, noted.producer_name = "words", "tool"
    assert digest(noted) == original
    changed = [onnx.ModelProto.FromString(model.SerializeToString()) for _ in range(4)]
    weight = numpy_helper.to_array(changed[0].graph.initializer[0]).copy()
    weight.flat[0] += 1
    changed[0].graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    changed[1].graph.node[1].op_type = "Sigmoid"
    changed[2].graph.initializer[0].dims[:] = [3, 8, 3, 3]
    changed[3].graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9
    assert len({original, *map(digest, changed)}) == 5


def test_the_digest_does_not_depend_on_how_weights_are_stored() -> None:
    model = build(f"{CONV_IN} h = Relu(c) {CONV_OUT}", CONVS)
    listed = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in listed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.reshape(-1).tolist())
    assert digest(listed) == digest(model)
    assert digest(canonicalise(model)) == digest(canonicalise(listed))
