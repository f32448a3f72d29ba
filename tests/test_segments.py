"""A model run segment by segment computes what it computes whole, each node once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build
from onnx import TensorProto, helper, numpy_helper
from oracles import random_feed
from small_networks import MODELS, digits

from onnxprune.canonical import canonicalise
from onnxprune.extract import read_by
from onnxprune.runtime import Session
from onnxprune.segments import Segments, forbidden_cuts

Array = np.ndarray
EMBEDDED = sorted(path.stem for path in MODELS.glob("*.onnx"))


def run_in_segments(
    model: onnx.ModelProto, cuts: Sequence[int], feed: dict[str, Array]
) -> list[Array]:
    """The model's outputs by way of these cuts; onnxruntime rewrites nothing, so equal is equal."""
    outputs = [output.name for output in model.graph.output]
    nodes = len(model.graph.node)
    segments = Segments(model, [*cuts, nodes], [set() for _ in cuts] + [set(outputs)])
    held = {name: feed[name] for name in segments.inputs}
    executed: list[str] = []
    for segment in segments.all:
        new: dict[str, Array] = {}
        if segment.nodes:
            given = {name: held[name] for name in segment.inputs}
            session = Session(segments.model(segment, given, {}), threads=1, optimization="none")
            arrays = session.run(given, segment.outputs)
            new = dict(zip(segment.outputs, arrays, strict=True))
        assert segment.passed <= held.keys()
        held = {name: held[name] for name in segment.passed} | new
        executed += [node.SerializeToString() for node in segment.nodes]
    assert len(executed) == len(set(executed)) <= nodes
    return [held[name] for name in outputs]


def assert_same(model: onnx.ModelProto, feed: dict[str, Array], cuts: Sequence[int]) -> None:
    whole = Session(model, threads=1, optimization="none").run(feed)
    for left, right in zip(run_in_segments(model, cuts, feed), whole, strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


def everywhere(model: onnx.ModelProto) -> list[int]:
    """Every place where a model can be cut."""
    allowed = set(range(1, len(model.graph.node))) - forbidden_cuts(model)
    return sorted(allowed)


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_micro_models_cut_everywhere_and_anywhere(name, rng):
    model = canonicalise(MICRO_MODELS[name]())
    feed = random_feed(model, rng, 2)
    cuts = everywhere(model)
    assert_same(model, feed, cuts)
    assert_same(model, feed, [cut for cut in cuts if rng.random() < 0.4])


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_models_cut_everywhere(name, rng):
    model = canonicalise(onnx.load(MODELS / f"{name}.onnx"))
    feed = {model.graph.input[0].name: digits()[:3]}
    assert_same(model, feed, everywhere(model))
    whole = Session(model, threads=1).run(feed)
    (rewritten,) = run_in_segments(model, everywhere(model)[::3], feed)
    np.testing.assert_allclose(rewritten, whole[0], rtol=1e-4, atol=1e-4)


def test_a_change_of_weights_shows_in_a_segment(rng):
    model = canonicalise(MICRO_MODELS["Relu"]())
    segments = Segments(model, [len(model.graph.node)], [{"y"}])
    feed = random_feed(model, rng, 2)
    (name,) = (w.name for w in model.graph.initializer if tuple(w.dims) == (4,))
    (segment,) = segments.all
    bias = np.arange(4, dtype=np.float32)
    (before,), (after,) = (
        Session(segments.model(segment, feed, values)).run(feed)
        for values in ({name: 0 * bias}, {name: bias})
    )
    np.testing.assert_allclose(after - before, np.broadcast_to(bias[:, None, None], before.shape))


def test_only_what_is_needed_runs(rng):
    """Neither what nobody wants nor what was done before; skips wait until they are read."""
    model = build(
        "a = Relu(x) b = Neg(a) c = Abs(b) unused = Exp(c) d = Add(c, a) y = Add(d, b)",
        {},
        inputs="float[N,6] x",
        outputs="float[N,6] y",
    )
    segments = Segments(model, [2, 3, 6], [{"b"}, {"c"}, {"y"}])
    first, second, third = segments.all
    assert [[n.op_type for n in s.nodes] for s in segments.all] == [
        ["Relu", "Neg"],
        ["Abs"],
        ["Add", "Add"],
    ]
    assert (first.inputs, first.outputs, first.passed) == (("x",), ("a", "b"), frozenset())
    assert (second.inputs, second.outputs, second.passed) == (("b",), ("c",), {"a", "b"})
    assert (third.inputs, third.outputs, third.passed) == (("a", "b", "c"), ("y",), frozenset())
    assert segments.inputs == ("x",)


def test_what_is_wanted_only_at_a_cut_is_not_carried_on():
    model = build("a = Relu(x) b = Neg(a) y = Abs(b)", {}, outputs="float[N,3,8,8] y")
    first, second = Segments(model, [2, 3], [{"a", "b"}, {"y"}]).all
    assert first.outputs == ("a", "b")
    assert second.inputs == ("b",)
    assert second.passed == frozenset()


def test_a_graph_input_may_be_wanted_and_may_be_needed_late(rng):
    model = build(
        "a = Relu(x) b = Neg(a) y = Add(b, z)",
        {},
        inputs="float[N,6] x, float[N,6] z",
        outputs="float[N,6] y",
    )
    segments = Segments(model, [1, 2], [{"x"}, {"b"}])
    assert [s.passed for s in segments.all] == [{"x"}, frozenset()]
    assert segments.inputs == ("x",)
    assert Segments(model, [1, 3], [set(), {"y"}]).inputs == ("x", "z")
    assert_same(model, random_feed(model, rng, 3), [1, 2])


def test_nothing_at_a_cut_is_an_empty_segment(rng):
    model = build("a = Relu(x) y = Neg(a)", {}, inputs="float[N,6] x", outputs="float[N,6] y")
    first, second = Segments(model, [0, 2], [{"x"}, {"y"}]).all
    assert (first.nodes, first.passed, second.inputs) == ((), {"x"}, ("x",))
    assert_same(model, random_feed(model, rng, 3), [0, 1, 1])


@pytest.mark.parametrize("cuts", [[1], [1, 2], [2, 3], [1, 2, 3]])
def test_what_graphs_inside_a_node_read_is_handed_on(cuts, rng):
    """Captured activations, captured weights, and names that only exist inside."""
    model = build(
        "a = Relu(x) b = Mul(a, w) s = ReduceSum <keepdims=0> (b) p = Greater(s, zero)"
        " y = If (p) <then_branch = g1 () => (float[N,6] t) { u = Add(a, w) t = Neg(u) },"
        " else_branch = g2 () => (float[N,6] t) { u = Mul(x, w) t = Neg(u) }>",
        {"w": (6,), "zero": np.array(0, np.float32)},
        inputs="float[N,6] x",
        outputs="float[N,6] y",
    )
    for sign in (1, -1):
        feed = {"x": sign * np.abs(random_feed(model, rng, 3)["x"])}
        assert_same(model, feed, cuts)


def test_a_loop_reads_what_it_captures(rng):
    model = build(
        "a = Relu(x) b = Neg(a)"
        " y = Loop (n, go, b) <body = g (int64 i, bool c, float[N,6] s) =>"
        " (bool d, float[N,6] t) { d = Identity(c) u = Add(s, a) t = Mul(u, w) }>",
        {"w": (6,), "n": np.array(3, np.int64), "go": np.array(True)},
        inputs="float[N,6] x",
        outputs="float[N,6] y",
    )
    assert_same(model, random_feed(model, rng, 3), [1, 2])


def test_initializers_that_are_inputs_too_stay_constants(rng):
    """As before IR version 4."""
    model = build("a = Mul(x, w) b = Relu(a) y = Add(b, w)", {"w": (6,)}, ir=3,
                  inputs="float[N,6] x, float[6] w", outputs="float[N,6] y", opset=8)  # fmt: skip
    assert Segments(model, [2], [{"b"}]).inputs == ("x",)
    assert_same(model, random_feed(model, rng, 3), [1, 2])


def test_sparse_initializers(rng):
    model = build(
        "a = Relu(x) b = MatMul(a, w) y = Add(b, c)",
        {"c": (6,)},
        inputs="float[N,6] x",
        outputs="float[N,6] y",
    )
    values = numpy_helper.from_array(np.array([2, 3], np.float32), "w")
    where = numpy_helper.from_array(np.array([1, 8], np.int64), "w_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [6, 6]))
    assert_same(model, random_feed(model, rng, 3), [1, 2])


def test_functions_of_the_model_travel_along(rng):
    model = build(
        "a = Relu(x) b = com.example.Twice(a) y = Neg(b)",
        {},
        inputs="float[N,6] x",
        outputs="float[N,6] y",
    )
    twice = [helper.make_node("Add", ["v", "v"], ["r"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("com.example", "Twice", ["v"], ["r"], twice, opsets)
    )
    assert_same(model, random_feed(model, rng, 3), [1, 2])


def test_batches_may_differ_in_size(rng):
    """The types of a segment are those of its first batch, its extents are not."""
    model = MICRO_MODELS["residual"]()
    segments = Segments(model, [2, len(model.graph.node)], [set(), {"y"}])
    first, second = segments.all
    sessions = []
    for batch in (4, 3, 1):
        feed = random_feed(model, rng, batch)
        if not sessions:
            sessions.append(Session(segments.model(first, feed, {})))
        held = dict(zip(first.outputs, sessions[0].run(feed, first.outputs), strict=True)) | feed
        held = {name: held[name] for name in second.inputs}
        if len(sessions) == 1:
            sessions.append(Session(segments.model(second, held, {})))
        np.testing.assert_allclose(
            sessions[1].run(held, ["y"])[0], Session(model).run(feed)[0], atol=1e-4
        )


def test_shapes_that_are_recorded_wrongly_do_no_harm(rng):
    """Onnxruntime only warns of those inside a model, but refuses such an input."""
    model = build("a = Relu(x) b = Neg(a) y = Abs(b)", {}, outputs="float[N,3,8,8] y")
    wrong = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3, 8, 8])
    model.graph.value_info.append(wrong)
    assert_same(model, random_feed(model, rng, 3), [1, 2])


BRANCHES = (
    "s = If (p) <then_branch = g1 () => (seq(float[N,K]) t) { t = SequenceConstruct(a, a) },"
    " else_branch = g2 () => (seq(float[N,K]) t) { u = Neg(a) t = SequenceConstruct(a, u) }>"
)
SEQUENCES = {
    "made and read": ("s = SplitToSequence <axis=1> (a, two) b = SequenceAt(s, one)", {2}),
    "handed on": (
        "s = SplitToSequence <axis=1> (a, two) t = Identity(s) c = Neg(a) b = SequenceAt(t, one)",
        {2, 3, 4},
    ),
    "from an If": (
        f"z = ReduceSum <keepdims=0> (a) p = Greater(z, half) {BRANCHES} b = SequenceAt(s, one)",
        {4},
    ),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_no_cut_where_a_sequence_would_wait(case, rng):
    nodes, forbidden = SEQUENCES[case]
    model = build(
        f"a = Relu(x) {nodes} y = Neg(b)",
        {
            "one": np.array(1, np.int64),
            "two": np.array(3, np.int64),
            "half": np.array(0.5, np.float32),
        },
        inputs="float[N,6] x",
        outputs="float[N,K] y",
    )
    assert forbidden_cuts(model) == forbidden
    assert_same(model, random_feed(model, rng, 3), everywhere(model))


def test_models_without_sequences_can_be_cut_everywhere():
    model = MICRO_MODELS["residual"]()
    assert forbidden_cuts(model) == set()
    assert all(read_by(node) for node in model.graph.node)
