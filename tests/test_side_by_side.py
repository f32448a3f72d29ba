"""Two networks advance together: each frontier is right, and every node runs once for each."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build
from onnx import TensorProto, numpy_helper
from oracles import random_feed
from small_networks import QUIET, halved

from onnxprune.errors import OnnxPruneError
from onnxprune.extract import exposed, read_by
from onnxprune.runtime import Session
from onnxprune.side_by_side import Frontier, SideBySide
from onnxprune.tensor_store import TensorStore

Array = np.ndarray


def changed(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy with other initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return copy


def activations(model: onnx.ModelProto, names: list[str], feed: dict[str, Array]) -> list[Array]:
    inside = [name for name in names if name not in feed]
    found = dict(feed)
    if inside:
        arrays = Session(exposed(model, inside), threads=1).run(feed, inside)
        found |= zip(inside, arrays, strict=True)
    return [found[name] for name in names]


def see(wanted: list[str], side: SideBySide) -> list[tuple[list[Array], list[Array], list[bool]]]:
    """What stands at the next cut, of every batch: originals, changed ones, whether they differ."""

    def task(_: int, frontier: Frontier) -> list[object]:
        return [
            (
                [frontier.original(name) for name in wanted],
                [frontier.of(0, name) for name in wanted],
                [frontier.differs(0, name) for name in wanted],
            )
        ]

    return side.advance(task, lambda total, part: total + part, [])  # type: ignore[return-value]


def close(left: list[Array], right: list[Array]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


LEFT = [{("b", 0): np.zeros(1)}, {("b", 0): np.ones(1)}]
"""What is left of two batches: in a variant, beside the tensor of that name."""
CHAIN = "a = Conv <pads=[1,1,1,1]> (x, w1) b = Relu(a) c = Conv <pads=[1,1,1,1]> (b, w2)"
NET = build(
    f"{CHAIN} s = Sigmoid(x) d = Add(c, s) e = Relu(d) f = Conv <pads=[1,1,1,1]> (e, w3)"
    " g = Add(f, b) k = Abs(s) y = Add(g, k)",
    dict.fromkeys(("w1", "w2", "w3"), (3, 3, 3, 3)),
    outputs="float[N,3,8,8] y",
)


@pytest.mark.parametrize("limit", [None, 0])
def test_frontiers_are_what_full_runs_give(limit, rng):
    feeds = [random_feed(NET, rng, batch) for batch in (4, 4, 2)]
    new = {f"w{i}": rng.standard_normal((3, 3, 3, 3)).astype(np.float32) for i in (2, 3)}
    wanted = [["b"], ["c", "s"], ["e", "b"], ["y"]]
    with TensorStore(limit) as store:
        side = SideBySide(NET, [2, 4, 6, 10], [set(w) for w in wanted], feeds, [{}], store, QUIET)
        side.change(0, new)
        for names in wanted:
            pairs = zip(see(names, side), feeds, strict=True)
            for (original, other, differ), feed in pairs:
                close(original, activations(NET, names, feed))
                close(other, activations(changed(NET, new), names, feed))
                assert differ == [name in ("c", "e", "y") for name in names]
        assert (store.bytes_spilled > 0) == (limit == 0)
        assert limit is None or store.bytes_held == 0


def test_a_change_applies_from_where_it_is_made(rng):
    """What lies behind has been computed and stays."""
    feed = random_feed(NET, rng, 2)
    first, second = ({f"w{i}": rng.standard_normal((3, 3, 3, 3)).astype("f4")} for i in (2, 3))
    with TensorStore() as store:
        side = SideBySide(NET, [3, 10], [{"c"}, {"y"}], [feed], [{}], store, QUIET)
        side.change(0, first)
        see(["c"], side)
        side.change(0, second | {"w2": np.zeros((3, 3, 3, 3), np.float32)})
        ((_, other, _),) = see(["y"], side)
    close(other, activations(changed(NET, first | second), ["y"], feed))


def test_what_no_change_reaches_runs_and_waits_once(rng):
    """Of ten nodes only those that read w3, or what is made of it, run twice."""
    feeds = [random_feed(NET, rng, 2) for _ in range(3)]
    with TensorStore() as store:
        side = SideBySide(NET, [3, 10], [{"c"}, {"y"}], feeds, [{}], store, QUIET)
        side.change(0, {"w3": rng.standard_normal((3, 3, 3, 3)).astype(np.float32)})
        see(["c"], side)
        assert side.node_runs == 3 * 3
        assert {name for name, own in store.keys(0) if own >= 0} == set()
        ((_, _, differs), *_) = see(["y"], side)
        assert differs == [True]
        assert side.node_runs == 3 * (10 + 3)  # Conv of e, and the two Adds behind it


def test_the_samples_are_read_once_and_only_what_is_needed_later_waits(rng):
    feeds = [random_feed(NET, rng, 2) for _ in range(3)]
    read = []

    def batches():
        for number, feed in enumerate(feeds):
            read.append(number)
            yield feed

    with TensorStore() as store:
        side = SideBySide(NET, [2, 5, 10], [{"b"}, {"d"}, {"y"}], batches(), [{}], store, QUIET)
        assert (read, store.bytes_held) == ([], 0)
        see(["b"], side)
        assert read == [0, 1, 2]
        assert {name for name, _ in store.keys(0)} == {"x", "b"}  # Sigmoid reads x
        see(["d"], side)
        assert {name for name, _ in store.keys(0)} == {"b", "d", "s"}
        see(["y"], side)
        assert read == [0, 1, 2]


def test_what_is_left_waits_for_another_look_and_no_longer(rng):
    feeds = [random_feed(NET, rng, batch) for batch in (4, 2)]
    store: TensorStore = TensorStore()
    side = SideBySide(NET, [2, 5], [{"b"}, {"d"}], iter(feeds), [{}], store, QUIET)
    side.advance(lambda number, _: number, lambda _, number: side.leave(number, LEFT[number]), None)
    for _ in range(2):
        seen = side.again(
            lambda _, frontier: [frontier.waiting(0, "b")], lambda total, part: total + part, []
        )
        assert [array.tolist() for array in seen] == [[0.0], [1.0]]
    side.advance(lambda *_: None, lambda *_: None, None)
    assert all("left" not in name for number in (0, 1) for name, _ in store.keys(number))


def test_nothing_waits_behind_the_last_cut(rng):
    feeds = [random_feed(NET, rng, 2)]
    held = []
    for last in (False, True):
        store: TensorStore = TensorStore()
        side = SideBySide(NET, [len(NET.graph.node)], [{"y"}], iter(feeds), [{}], store, QUIET)
        side.advance(lambda *_: None, lambda *_: None, None, last=last)
        held.append(store.bytes_held)
    assert held[0] > held[1] == 0


def test_variants_do_not_see_each_other(rng):
    """Each has its own changes; what none of them reaches is the original's."""
    feed = random_feed(NET, rng, 2)
    news = [{f"w{i}": rng.standard_normal((3, 3, 3, 3)).astype(np.float32)} for i in (1, 3, 2)]
    with TensorStore() as store:
        side = SideBySide(NET, [3, 10], [{"c"}, {"y"}], [feed], [*news[:2], {}], store, QUIET)
        side.advance(lambda *_: None, lambda *_: None, None)
        assert store.keys(0) >= {("b", -1), ("b", 0), ("c", -1), ("c", 0)}
        assert not {key for key in store.keys(0) if key[1] > 0}
        assert side.node_runs == 3 + 3
        see = side.advance(
            lambda _, frontier: [frontier.of(i, "y") for i in (-1, 0, 1, 2)],
            lambda _, found: found,
            [],
        )
    wanted = [activations(changed(NET, new), ["y"], feed)[0] for new in ({}, *news[:2], {})]
    close(see, wanted)
    assert side.node_runs == 6 + 7 + 5 + 3  # Sigmoid and Abs are nobody's but the original's


class Counting(Session):
    """Counts what sessions execute: nodes times samples."""

    executed = 0

    def __init__(self, model: onnx.ModelProto, **options: object) -> None:
        super().__init__(model, **options)  # type: ignore[arg-type]
        self.nodes = len(model.graph.node)

    def run(self, feed, outputs=None):
        Counting.executed += self.nodes * len(next(iter(feed.values())))
        return super().run(feed, outputs)


def tower(depth: int) -> onnx.ModelProto:
    """Residual sections of four nodes each."""
    nodes, before = "", "x"
    for i in range(depth):
        nodes += f" a{i} = Conv <pads=[1,1,1,1]> ({before}, w{i}) b{i} = Relu(a{i})"
        nodes += f" c{i} = Add(b{i}, {before}) h{i} = Abs(c{i})"
        before = f"h{i}"
    weights = {f"w{i}": (3, 3, 3, 3) for i in range(depth)}
    return build(f"{nodes} y = Identity({before})", weights, outputs="float[N,3,8,8] y")


@pytest.mark.parametrize("depth", [4, 8, 16])
def test_the_work_grows_with_the_depth_and_not_faster(depth, rng, monkeypatch):
    """However many cuts there are, a node runs twice for a sample at most."""
    monkeypatch.setattr("onnxprune.side_by_side.Session", Counting)
    Counting.executed = 0
    model = tower(depth)
    feeds = [random_feed(model, rng, batch) for batch in (3, 3, 1)]
    cuts = [4 * (i + 1) for i in range(depth)]
    with TensorStore() as store:
        side = SideBySide(model, cuts, [{f"h{i}"} for i in range(depth)], feeds, [{}], store, QUIET)
        side.change(0, {"w0": np.zeros((3, 3, 3, 3), np.float32)})
        for i in range(depth):
            see([f"h{i}"], side)
    assert Counting.executed == 2 * 7 * 4 * depth
    assert side.node_runs == 2 * 3 * 4 * depth


def test_brain_floats_run_as_float32_where_there_are_no_kernels(rng):
    """In every segment, whether or not it happens to hold a node without one."""
    model = halved(MICRO_MODELS["residual"](), ml_dtypes.bfloat16)
    assert any(t.data_type == TensorProto.BFLOAT16 for t in model.graph.initializer)
    feed = {"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)}
    nodes = model.graph.node
    last = nodes[-1].output[0]
    with TensorStore() as store:
        cuts = list(range(1, len(nodes) + 1))
        wanted = [{node.output[0]} for node in nodes]
        side = SideBySide(model, cuts, wanted, [feed], [{}], store, QUIET)
        weight = next(w for w in model.graph.initializer if w.name in read_by(nodes[0]))
        side.change(0, {weight.name: 2 * numpy_helper.to_array(weight)})
        for node in nodes:
            ((original, other, _),) = see([node.output[0]], side)
    close(original, Session(model).run(feed, [last]))
    assert original[0].dtype == np.float32
    assert not np.array_equal(original[0], other[0])


def test_a_segment_that_onnxruntime_refuses_is_named(rng):
    model = build(
        "a = Relu(x) b = com.example.Unknown(a) y = Abs(b)",
        {},
        inputs="float[N,6] x",
        outputs="float[N,6] y",
    )
    for node in model.graph.node:
        node.name = f"the {node.op_type}"
    with TensorStore() as store:
        side = SideBySide(
            model, [1, 3], [{"a"}, {"y"}], [random_feed(model, rng, 2)], [{}], store, QUIET
        )
        see(["a"], side)
        with pytest.raises(OnnxPruneError, match="from 'the Unknown' to 'the Abs' on their own"):
            see(["y"], side)
