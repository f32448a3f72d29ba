"""Shapes computed inside the graph, and shuffles: what is followed, and what becomes a constant."""

from __future__ import annotations

import micro_graphs
import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build, ints
from onnx import numpy_helper
from oracles import Subject, distance, outputs_match, random_feed, run, tolerance

from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def frozen_producers(model: onnx.ModelProto) -> dict[str, str]:
    """Producers of more than one channel that cannot be cut, except the graph's outputs'."""
    network = find_groups(canonicalise(model))
    return {
        frozen.producer: frozen.reason
        for frozen in network.frozen
        if frozen.size > 1 and not frozen.reason.startswith("graph")
    }


@pytest.mark.parametrize("name", micro_graphs.NAMES)
def test_nothing_but_the_output_stays_whole(name: str) -> None:
    assert frozen_producers(MICRO_MODELS[name]()) == {}


# --- shuffles -----------------------------------------------------------------------------------

SHUFFLES = [name for name in micro_graphs.NAMES if name.startswith("shuffle")]


@pytest.mark.parametrize("name", SHUFFLES)
def test_a_shuffle_is_one_gather(name: str) -> None:
    found = ops(canonicalise(MICRO_MODELS[name]()))
    assert found.count("Gather") == (2 if name == "shuffle twice" else 1)
    assert not {"Reshape", "Transpose", "Shape"} & set(found)


def test_the_gather_reads_the_groups_in_turn() -> None:
    canonical = canonicalise(MICRO_MODELS["shuffle"]())
    (gather,) = [node for node in canonical.graph.node if node.op_type == "Gather"]
    (indices,) = [t for t in canonical.graph.initializer if t.name == gather.input[1]]
    assert numpy_helper.to_array(indices).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_branches_of_a_shuffle_are_cut_by_different_counts(rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS["shuffle"]())
    names = {name for group in micro.network.groups for name in group.producers}
    assert {"Conv_0", "Conv_1"} <= names
    assert all(group.part_count == 1 for group in micro.network.groups)


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        # Somebody else sees what is between.
        ("m = Transpose <perm=[0,2,1,3,4]> (l) h = Reshape(m, joined)", ", float[N,4,2,8,8] m"),
        # Pieces of channels and of heights change places.
        ("m = Transpose <perm=[0,3,2,1,4]> (l) h = Reshape(m, joined)", ""),
        # Nothing changes places.
        ("m = Transpose <perm=[0,1,2,3,4]> (l) h = Reshape(m, joined)", ""),
    ],
)
def test_what_is_no_shuffle_stays(nodes: str, outputs: str, rng: np.random.Generator) -> None:
    model = build(
        f"{CONV_IN} l = Reshape(c, apart) {nodes} {CONV_OUT}",
        CONVS | {"apart": ints(0, 2, 4, 8, 8), "joined": ints(0, 8, 8, 8)},
        outputs=f"float[N,4,HY,WY] y{outputs}",
    )
    canonical = canonicalise(model)
    assert "Gather" not in ops(canonical)
    outputs_match(canonical, model, tolerance(Subject(model).network), rng)


# --- computed shapes ----------------------------------------------------------------------------


def test_extents_that_somebody_uses_hold_their_axis() -> None:
    model = build(
        f"{CONV_IN} s = Shape(c) k = Cast <to=1> (s) t = ReduceSum <keepdims=0> (k) h = Mul(c, t)"
        f" {CONV_OUT}",
        CONVS,
        inputs="float[N,3,H,W] x",
    )
    assert "Shape" in frozen_producers(model)["Conv_0"]


def test_a_shape_that_is_an_output_holds_its_tensor(rng: np.random.Generator) -> None:
    model = build(
        f"{CONV_IN} s = Shape(c) n = Gather <axis=0> (s, two) f = Cast <to=1> (n) h = Mul(c, f)"
        f" {CONV_OUT}",
        CONVS | {"two": ints(2)},
        inputs="float[N,3,H,W] x",
        outputs="float[N,4,HY,WY] y, int64[4] s",
    )
    assert "Shape" in frozen_producers(model)["Conv_0"]
    feed = random_feed(model, rng, 2)
    assert distance(run(canonicalise(model), feed), run(model, feed)) < 1e-5


def test_channels_behind_an_interpolation_are_known() -> None:
    for name in ("Resize to a factor of the size", "Resize to a skip connection"):
        canonical = canonicalise(MICRO_MODELS[name]())
        (resize,) = [node for node in canonical.graph.node if node.op_type == "Resize"]
        (value,) = [v for v in canonical.graph.value_info if v.name == resize.output[0]]
        assert value.type.tensor_type.shape.dim[1].dim_value == 8


def test_a_channel_number_that_somebody_uses_holds_the_channels() -> None:
    """Behind a Concat and as a float, where it is no constant."""
    model = build(
        f"{CONV_IN} s = Shape(x) t = Shape(c) k = Concat <axis=0> (s, t) f = Cast <to=1> (k)"
        f" g = Gather <axis=0> (f, five) h = Mul(c, g) {CONV_OUT}",
        CONVS | {"five": ints(5)},
        inputs="float[N,3,H,W] x",
    )
    assert "Shape" in frozen_producers(model)["Conv_0"]


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Resize(c, , , sizes)",
        "s = Shape(c) n = Slice(s, zero, one) k = Concat <axis=0> (n, rest) h = Resize(c, , , k)",
    ],
)
def test_channels_that_are_interpolated_are_frozen(nodes: str) -> None:
    model = build(
        f"{CONV_IN} {nodes} {CONV_OUT}",
        CONVS
        | {
            "sizes": ints(1, 16, 8, 8),
            "rest": ints(16, 8, 8),
            "zero": ints(0),
            "one": ints(1),
            "w2": (4, 16, 1, 1),
        },
        inputs="float[1,3,8,8] x",
    )
    assert "Resize" in frozen_producers(model)["Conv_0"]


# --- assignments to slices ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in micro_graphs.NAMES if n.startswith("ScatterND to")])
def test_an_assignment_to_a_slice_is_a_concat(name: str) -> None:
    found = ops(canonicalise(MICRO_MODELS[name]()))
    assert "ScatterND" not in found
    assert "Concat" in found


@pytest.mark.parametrize(
    "places",
    [
        np.array([[[0, 0], [0, 1]], [[1, 1], [1, 0]]]),  # changed about in the second row
        np.array([[[0, 0], [0, 2]], [[1, 0], [1, 2]]]),  # every second
        np.array([[[0, -3], [0, -2]], [[1, -3], [1, -2]]]),  # counted from the end
        np.array([[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]]),  # everything
        np.array([[[0, 0], [0, 1]]]),  # parts of two axes
    ],
)
def test_other_assignments_stay(places: np.ndarray, rng: np.random.Generator) -> None:
    shape = ",".join(map(str, (*places.shape[:-1], 4)))
    model = build(
        "y = ScatterND(x, i, u)",
        {"i": places.astype(np.int64)},
        inputs=f"float[2,3,4] x, float[{shape}] u",
        outputs="float[2,3,4] y",
    )
    canonical = canonicalise(model)
    assert ops(canonical) == ["ScatterND"]
    feed = random_feed(model, rng)
    assert distance(run(canonical, feed), run(model, feed)) == 0


def test_batches_without_a_name_need_not_be_equal() -> None:
    model = build(
        "s = Shape(z) u = Slice(s, zero, one) shape = Concat <axis=0> (u, minus)"
        " r = Reshape(x, shape) y = Relu(r)",
        {"zero": ints(0), "one": ints(1), "minus": ints(-1)},
        inputs="float[N,6] x, float[M,3] z",
        outputs="float[A,B] y",
    )
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    feed = {"x": np.ones((4, 6), np.float32), "z": np.ones((2, 3), np.float32)}
    (y,) = run(canonicalise(model), feed)
    assert y.shape == (2, 12)
