"""Recurrent layers: their two linear maps, their canonical form, and how they are recovered."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, Weight, build, ints
from micro_recurrent import LAST_STATE, STEPS, layer
from onnx.reference import ReferenceEvaluator
from oracles import Subject, distance, masked, tolerance
from small_networks import random_samples, studied

from onnxprune import Options, Target, prune
from onnxprune.canonical import canonicalise
from onnxprune.gram import Gram
from onnxprune.groups import find_groups
from onnxprune.linear_map import FeatureSpec
from onnxprune.network import Network
from onnxprune.plan import Weights
from onnxprune.problems import consumer_views, readers_of
from onnxprune.recurrent_map import recurrent_maps
from onnxprune.refit import refit
from onnxprune.rewrite import apply
from onnxprune.runtime import Session

SHARED: dict[str, Weight] = {"wo": (8, 5), "bo": (5,), "zero": ints(0), "one": ints(1)}
HALVES = "hs, cs = Split <axis=0> (h, ones)"
TORCH = "LSTM as PyTorch writes it"


def network(nodes: str, weights: dict[str, Weight], **options: str) -> Network:
    options = {"inputs": STEPS, "outputs": "float[N,5] y"} | options
    return find_groups(canonicalise(build(nodes, SHARED | weights, **options)))


def reasons(found: Network) -> dict[str, str]:
    return {frozen.producer: frozen.reason for frozen in found.frozen}


# --- the two linear maps --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LSTM, bidirectional", "GRU", "RNN"])
def test_matrices_and_biases_come_back_as_they_were(name: str, rng: np.random.Generator) -> None:
    found = find_groups(canonicalise(MICRO_MODELS[name]()))
    node = next(node for node in found.graph.nodes if node.name in found.producers)
    maps = recurrent_maps(node)
    before = node.inputs[3].values
    for linear_map in maps:
        weight = linear_map.weight.values
        assert np.array_equal(linear_map.from_matrices(linear_map.matrices()), weight)
        assert sum(len(matrix) for matrix in linear_map.matrices()) == linear_map.outputs
        assert np.array_equal(linear_map.with_bias(before, linear_map.bias_vector()), before)
        keep = [np.array([0, 2, 5])] * len(linear_map.matrices())
        cut = linear_map.slice_inputs(weight, keep)
        assert cut.shape == (*weight.shape[:2], 3)
        assert np.array_equal(linear_map.pad_inputs(cut, keep)[..., [0, 2, 5]], cut)
    first, second = (rng.standard_normal(m.outputs).astype(np.float32) for m in maps)
    after = maps[1].with_bias(maps[0].with_bias(before, first), second)
    halves = np.split(after, 2, axis=1)
    assert np.array_equal(halves[0].ravel(), first)
    assert np.array_equal(halves[1].ravel(), second)


def test_a_unit_is_made_by_its_rows_of_both_matrices() -> None:
    found = find_groups(canonicalise(MICRO_MODELS["LSTM, bidirectional"]()))
    weight, recurrence = (t.values for t in found.graph.nodes[0].inputs[1:3])
    rows = found.producers["LSTM_0"].rows()
    wanted = [t[:, [j, 8 + j, 16 + j, 24 + j]] for j in [3] for t in (weight, recurrence)]
    assert rows.shape == (8, 2 * 4 * (6 + 8))
    assert sorted(rows[3]) == sorted(np.concatenate([t.ravel() for t in wanted]))


def test_both_ways_have_statistics_of_their_own() -> None:
    found = find_groups(canonicalise(MICRO_MODELS["LSTM, bidirectional"]()))
    reads_input, reads_units = (
        m.feature_spec(m.x.name, len(m.x.shape)) for m in recurrent_maps(found.graph.nodes[0])
    )
    assert reads_input == FeatureSpec("x", 3, 2, samples=1)
    assert reads_units == FeatureSpec("all", 4, 3, parts=2, apart=1, samples=2)


def test_a_layer_may_read_flattened_maps_channel_by_channel() -> None:
    """As those too wide for a Gram of all their entries are."""
    found = find_groups(canonicalise(MICRO_MODELS["LSTM behind a convolution"]()))
    view = consumer_views(found, readers_of(found.groups), max_features=6)["LSTM_3"]
    assert (view.stack, view.channels.size) == (4, 5)
    gram = Gram(1, 5)
    gram.add(np.eye(6)[None])
    grams = dict.fromkeys(view.specs, gram)
    (problem,) = view.problems(grams, grams)
    assert problem.weight.shape == (4 * 32, 6)
    weight = view.weight_tensor([problem.weight[:, :-1]])
    assert np.array_equal(weight, view.linear_map.weight.values)
    assert np.allclose(view.bias_tensor([problem.weight[:, -1]]), view.linear_map.bias_vector())


# --- canonical form -------------------------------------------------------------------------------


def test_zero_states_are_left_out_with_the_arithmetic_that_makes_them() -> None:
    ops = [node.op_type for node in canonicalise(MICRO_MODELS[TORCH]()).graph.node]
    assert ops == [
        "MatMul",
        "Relu",
        "Transpose",
        *["LSTM", "Squeeze"] * 2,
        "Transpose",
        "Gather",
        "Gemm",
    ]


def test_zeros_from_several_operators_are_zeros() -> None:
    nodes = (
        "e = Expand (nought, shape) i = Identity (e) c = Concat <axis=0> (i, e)"
        " h, g = Split <axis=0> (c, ones) k = Unsqueeze (i2, zero)"
        f" all, last = LSTM <hidden_size=8> (x, w1, r1, , , h, k) {LAST_STATE}"
    )
    weights = layer("LSTM", 1) | {
        "nought": np.zeros((), np.float32),
        "shape": ints(1, 2, 8),
        "ones": ints(1, 1),
        "i2": np.zeros((2, 8), np.float32),
    }
    node = network(nodes, weights, inputs="float[9,2,6] x", outputs="float[2,5] y").graph.nodes[0]
    assert [t.name for t in node.inputs[:3]] == ["x", "w1", "r1"]
    assert len(node.inputs) == 4  # and zero biases
    assert not node.inputs[3].values.any()


def test_other_states_stay() -> None:
    found = find_groups(canonicalise(MICRO_MODELS["LSTM, peepholes and initial states"]()))
    assert [t.name for t in found.graph.nodes[0].inputs[5:]] == ["h0", "c0", "p"]


def test_there_is_an_output_sequence_for_the_statistics() -> None:
    name = "LSTM without bias, last state only"
    (node,) = (n for n in canonicalise(MICRO_MODELS[name]()).graph.node if n.op_type == "LSTM")
    assert node.output[0] == "LSTM_0.sequence"


# --- what is cut ----------------------------------------------------------------------------------


def test_weights_and_the_number_of_units_shrink() -> None:
    micro = Subject(MICRO_MODELS["LSTM, peepholes and initial states"]())
    pruned = apply(micro.model, micro.plan({"LSTM_0": np.array([1, 4, 6])}))
    sizes = {t.name: list(t.dims) for t in pruned.graph.initializer}
    expected = {"w1": [1, 12, 6], "r1": [1, 12, 3], "b1": [1, 24], "p": [1, 9]}
    assert sizes == sizes | expected | {"h0": [1, 2, 3], "c0": [1, 2, 3], "wo": [3, 5]}
    assert [a.i for a in pruned.graph.node[0].attribute if a.name == "hidden_size"] == [3]
    original, cut = (
        next(onnx.numpy_helper.to_array(t) for t in m.graph.initializer if t.name == "r1")
        for m in (micro.model, pruned)
    )
    rows = [gate * 8 + unit for gate in range(4) for unit in (1, 4, 6)]
    assert np.array_equal(cut[0], original[0][np.ix_(rows, [1, 4, 6])])


@pytest.mark.parametrize(
    ("nodes", "inputs", "outputs", "reason"),
    [
        (
            f"all, last = LSTM <hidden_size=8> (x, w1, r1, b1, , h) {LAST_STATE}",
            f"{STEPS}, float[1,N,8] h",
            "",
            "its initial state comes from graph input 'h'",
        ),
        (
            f"{HALVES} all, last = LSTM <hidden_size=8> (x, w1, r1, b1, , hs, cs) {LAST_STATE}",
            f"{STEPS}, float[2,N,8] h",
            "",
            "its initial state comes from graph input 'h'",
        ),
        (
            f"all, last, cell = LSTM <hidden_size=8> (x, w1, r1, b1) {LAST_STATE}",
            STEPS,
            ", float[1,N,8] cell",
            "graph output 'cell'",
        ),
        (
            f"all, last = LSTM <hidden_size=8> (x, w1, r, b1) {LAST_STATE}",
            f"{STEPS}, float[1,32,8] r",
            "",
            "its weights are shared or not constant, or a shape is not known",
        ),
    ],
)
def test_layers_that_stay_whole_and_why(nodes: str, inputs: str, outputs: str, reason: str) -> None:
    weights = layer("LSTM", 1) | {"ones": ints(1, 1)}
    found = network(nodes, weights, inputs=inputs, outputs=f"float[N,5] y{outputs}")
    assert reasons(found)[next(n.name for n in found.graph.nodes if n.op == "LSTM")] == reason


def test_of_a_single_step_r_reads_no_output() -> None:
    found = find_groups(canonicalise(MICRO_MODELS["LSTM of one step"]()))
    assert set(found.consumers) == {"LSTM_0", "MatMul_2"}
    assert found.groups[0].size == 8


def test_shared_weights_are_not_cut() -> None:
    nodes = (
        "a = RNN <hidden_size=80> (x, w, r, b) m = Squeeze (a, one)"
        " all, last = RNN <hidden_size=80> (m, w, r, b) s = Squeeze (last, zero) y = Gemm (s, wo)"
    )
    weights: dict[str, Weight] = {"w": (1, 80, 80), "r": (1, 80, 80), "b": (1, 160), "wo": (80, 5)}
    found = network(nodes, weights, inputs="float[9,N,80] x")
    assert found.groups == ()
    assert reasons(found)["RNN_2"].startswith("its weights are shared")


def test_samples_before_steps(rng: np.random.Generator) -> None:
    """Which onnxruntime does not run on a CPU: the reference implementation of onnx does."""
    model = build(
        "all, last = GRU <hidden_size=8, layout=1, linear_before_reset=1> (x, w1, r1, b1)"
        " y = MatMul (all, wo)",
        layer("GRU", 1) | {"wo": (8, 5)},
        inputs="float[N,9,6] x",
        outputs="float[N,9,1,5] y",
    )
    micro = Subject(model)
    keeps = {"GRU_0": np.array([0, 3, 4])}
    pruned, reference = apply(model, micro.plan(keeps)), masked(micro, micro.alive(keeps))
    x = rng.standard_normal((1, 9, 6)).astype(np.float32)
    results = [ReferenceEvaluator(m).run(None, {"x": x}) for m in (pruned, reference)]
    assert distance(*results) <= tolerance(micro.network)
    (recurrence,) = [c for c in micro.network.consumers if c.endswith("/recurrence")]
    spec = micro.network.consumers[recurrence].feature_spec("all", 4)
    assert (spec.axis, spec.samples, spec.apart) == (3, 0, None)


# --- recovery -------------------------------------------------------------------------------------


def redundant(op: str, ways: int, **attributes: str) -> onnx.ModelProto:
    """A layer of 8 units of which the last 4 repeat the first 4, in another order backwards."""
    weights = layer(op, 1, ways=ways)
    for tensor in weights.values():
        rows = tensor.reshape(ways, -1, 8, *tensor.shape[2:])  # a view of every gate
        rows[0, :, 4:] = rows[0, :, :4]
        rows[1:, :, 4:] = rows[1:][:, :, [1, 0, 3, 2]]
    way = 'direction="bidirectional", ' if ways == 2 else ""
    extra = "".join(f"{key}={value}, " for key, value in attributes.items())
    return build(
        f"t = Transpose <perm=[1,0,2]> (x) all = {op} <{way}{extra}hidden_size=8> (t, w1, r1, b1)"
        " u = Transpose <perm=[2,0,1,3]> (all) s = Reshape (u, flat) y = MatMul (s, wo)",
        weights | {"flat": ints(0, 0, -1), "wo": (8 * ways, 5)},
        inputs="float[N,9,6] x",
        outputs="float[N,9,5] y",
    )


@pytest.mark.parametrize(
    ("op", "ways", "attributes"),
    [
        ("LSTM", 1, {}),
        ("LSTM", 2, {}),
        ("GRU", 1, {}),
        ("GRU", 2, {"linear_before_reset": "1"}),
        ("RNN", 2, {}),
    ],
)
def test_units_that_repeat_others_are_recovered_exactly(
    op: str, ways: int, attributes: dict[str, str]
) -> None:
    """Through the readers and through R, where each direction has statistics of its own."""
    known = studied(redundant(op, ways, **attributes), options=Options(criterion="l1"))
    keeps = {f"{op}_1": np.array([0, 1, 6, 7])}
    alive = known.network.survivors(keeps)
    weights = refit(known.study.views, known.study.layers, alive, known.study.recovery).weights
    assert set(weights.arrays) == {f"{op}_1/recurrence", "MatMul_4"}
    feed = random_samples(known.model, 5, seed=1)
    wanted = Session(known.model, threads=1).run(feed)
    found = Session(apply(known.model, known.plan(keeps), weights), threads=1).run(feed)
    sliced = Session(apply(known.model, known.plan(keeps)), threads=1).run(feed)
    assert distance(found, wanted) < 0.01 < 0.1 < distance(sliced, wanted)


def test_recovery_through_r_is_what_helps() -> None:
    """The readers alone cannot make up for it."""
    known = studied(redundant("LSTM", 2), options=Options(criterion="l1"))
    keeps = {"LSTM_1": np.array([0, 1, 6, 7])}
    alive = known.network.survivors(keeps)
    weights = refit(known.study.views, known.study.layers, alive, known.study.recovery).weights
    readers = Weights({k: v for k, v in weights.arrays.items() if k == "MatMul_4"})
    feed = random_samples(known.model, 5, seed=1)
    wanted = Session(known.model, threads=1).run(feed)
    gaps = [
        distance(Session(apply(known.model, known.plan(keeps), w), threads=1).run(feed), wanted)
        for w in (weights, readers)
    ]
    assert gaps[0] < 0.1 * gaps[1]


def test_prune_recovers_a_recurrent_network() -> None:
    model = MICRO_MODELS["LSTM, two bidirectional layers, samples first"]()
    samples = random_samples(model, 200)
    errors = []
    for recovery in (True, False):
        options = Options(latency=False, recovery=recovery, align=1)
        result = prune(model, samples, Target("macs", 0.6), options=options)
        report = result.report
        assert report.after.macs <= 0.6 * report.before.macs
        assert {group.name for group in report.groups} == {"LSTM_1", "LSTM_4"}
        errors.append(report.outputs[0].relative_error)
    assert errors[0] < 0.8 * errors[1]
