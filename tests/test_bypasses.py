"""Bypasses around the layers of chains, and skips merged with what is before them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import floats, ints, positive, whole
from onnx import numpy_helper
from oracles import distance, random_feed, structure_ok

from onnxprune.errors import UnsupportedModelError
from onnxprune.model import load
from onnxprune.runtime import Session
from onnxprune.train.bypasses import with_bypasses
from onnxprune.train.gated_sections import GatedSection, gated_sections
from onnxprune.train.linear_skips import merge_skips, own_skips
from onnxprune.train.section_cut import without_sections

MODELS = Path(__file__).parents[1] / "models"
ROUNDING = 2e-5
"""Weights are multiplied in float64 and stored in float32; a few layers of float32 sums."""

CHAIN = whole(
    "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a)"
    " b = Conv <pads=[1,1,1,1]> (r, w2, b2) n = BatchNormalization(b, s2, t2, m2, v2) s = Relu(n)"
    " p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (s)"
    " c = Conv <pads=[1,1,1,1]> (p, w3, b3) t = Tanh(c)"
    " d = Conv (t, w4) u = Relu(d)"
    " q = GlobalAveragePool(u) f = Flatten(q) g = Gemm <transB=1> (f, w5, b5) h = Relu(g)"
    " i = Gemm (h, w6, b6) j = Relu(i) y = Gemm (j, w7)",
    {
        "w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "s2": positive(1, 6),
        "t2": (6,), "m2": (6,), "v2": positive(2, 6), "w3": (8, 6, 3, 3), "b3": (8,),
        "w4": (8, 8, 3, 3), "w5": (7, 8), "b5": (7,), "w6": (7, 7), "b6": (7,), "w7": (7, 4),
    },
    inputs="float[N,3,12,12] x",
    outputs="float[N,4] y",
)  # fmt: skip


def values(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return Session(model, threads=1).run(feed)


def gap(model: onnx.ModelProto, other: onnx.ModelProto, seed: int = 0) -> float:
    feed = random_feed(model, np.random.default_rng(seed), 3, 12)
    return distance(values(model, feed), values(other, feed))


def shaken(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """A copy whose bypasses are no longer zero, as after some training."""
    rng = np.random.default_rng(seed)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        if ".bypass." in tensor.name and tensor.data_type == onnx.TensorProto.FLOAT:
            drawn = rng.standard_normal(tuple(tensor.dims)).astype(np.float32) / 3
            tensor.CopyFrom(numpy_helper.from_array(drawn, tensor.name))
    return copy


def linear_nodes(model: onnx.ModelProto) -> int:
    return sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph.node)


# --- bypasses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [CHAIN, *(
    lambda name=name: load(MODELS / f"{name}_digits.onnx") for name in ("vgg", "mlp")
)])  # fmt: skip
def test_new_bypasses_leave_every_bit_where_it_was(build) -> None:
    model = build()
    before = model.SerializeToString()
    bypassed = with_bypasses(model).model
    assert model.SerializeToString() == before
    structure_ok(bypassed, model)
    feed = random_feed(model, np.random.default_rng(0), 3, 12)
    for one, other in zip(values(model, feed), values(bypassed, feed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("start", ["unchanged", "fresh"])
def test_every_inner_layer_of_a_chain_becomes_a_section(start) -> None:
    result = with_bypasses(CHAIN(), start=start)
    sections = gated_sections(result.model)
    assert [section.total for section in sections.found] == [
        f"{made}/sum" for made in ("n", "c", "d", "i")
    ]
    assert sections.frozen == ()
    assert len(result.added) == 4
    assert {layer.name: layer.reason.split(",")[0] for layer in result.refused} == {
        "g": "its input is flattened or moved",
        "y": "it makes the outputs",
    }


def test_a_bypass_reads_every_so_many_positions_or_the_middle() -> None:
    """c: 12 to 6 by a pooling; d: 6 to 4 without padding, positions 1 to 4."""
    bypassed = with_bypasses(CHAIN(), start="fresh").model
    sections = {section.total: section for section in gated_sections(bypassed).found}
    chosen = [sections["c/sum"], sections["d/sum"]]
    cut = without_sections(bypassed, chosen)
    kinds = [node.op_type for node in cut.graph.node if "bypass" in node.name]
    assert kinds == ["Conv"]
    steps = next(n for n in cut.graph.node if n.op_type == "Conv" and "bypass" in n.name)
    assert onnx.helper.get_attribute_value(steps.attribute[0]) == [2, 2]
    tensors = {t.name: numpy_helper.to_array(t) for t in cut.graph.initializer}
    middle = next(n for n in cut.graph.node if n.op_type == "Slice")
    assert [tensors[name].tolist() for name in middle.input[1:]] == [
        [1, 1], [5, 5], [2, 3], [1, 1],
    ]  # fmt: skip


def test_fresh_bypasses_are_the_identity_where_shapes_agree() -> None:
    bypassed = with_bypasses(CHAIN(), start="fresh", seed=3).model
    weights = [t.name for t in bypassed.graph.initializer if t.name.endswith(".bypass.weight")]
    assert weights == ["c.bypass.weight"]
    names = {t.name: numpy_helper.to_array(t) for t in bypassed.graph.initializer}
    assert 0.5 < 6 * names["c.bypass.weight"].var() < 2
    again = with_bypasses(CHAIN(), start="fresh", seed=3).model
    assert again.SerializeToString() == bypassed.SerializeToString()


def test_a_model_without_chains_is_refused() -> None:
    model = whole(
        "a = Conv (x, w1) r = Relu(a) y = Conv (r, w2)",
        {"w1": (4, 3, 3, 3), "w2": (5, 4, 3, 3)},
        outputs="float[N,5,H,W] y",
        inputs="float[N,3,8,8] x",
    )()
    with pytest.raises(UnsupportedModelError, match="it makes the outputs"):
        with_bypasses(model)


def test_layers_in_residual_sections_are_no_chain() -> None:
    result = load(MODELS / "resnet_digits.onnx")
    totals = {section.total for section in gated_sections(result).found}
    bypassed = with_bypasses(result)
    joins = [n for n in bypassed.model.graph.node if n.name.endswith("/join")]
    assert not totals & {name for node in joins for name in node.input}


# --- merging ------------------------------------------------------------------------------------


def cut_of(model: onnx.ModelProto, totals: tuple[str, ...]) -> tuple[onnx.ModelProto, list[str]]:
    found: list[GatedSection] = [s for s in gated_sections(model).found if s.total in totals]
    assert len(found) == len(totals)
    return without_sections(model, found), own_skips(model, found)


@pytest.mark.parametrize("start", ["unchanged", "fresh"])
@pytest.mark.parametrize(
    ("totals", "fewer"),
    [
        (("n/sum",), {"unchanged": 1, "fresh": 0}),
        (("n/sum", "c/sum"), {"unchanged": 2, "fresh": 1}),
        (("d/sum",), {"unchanged": 0, "fresh": 0}),
        (("i/sum",), {"unchanged": 1, "fresh": 0}),
        (("n/sum", "c/sum", "d/sum", "i/sum"), {"unchanged": 3, "fresh": 1}),
    ],
)
def test_merged_skips_compute_what_they_did(totals, fewer, start) -> None:
    bypassed = shaken(with_bypasses(CHAIN(), start=start).model)
    cut, skips = cut_of(bypassed, totals)
    merged = merge_skips(cut, skips)
    structure_ok(merged, cut)
    assert gap(merged, cut) < ROUNDING
    assert linear_nodes(cut) - linear_nodes(merged) == fewer[start]
    read = {name for node in merged.graph.node for name in node.input}
    assert {tensor.name for tensor in merged.graph.initializer} <= read


def test_a_skip_behind_a_section_that_stays_is_merged_into_both_summands() -> None:
    bypassed = shaken(with_bypasses(CHAIN()).model)
    cut, skips = cut_of(bypassed, ("c/sum",))
    merged = merge_skips(cut, skips)
    structure_ok(merged, cut)
    assert gap(merged, cut) < ROUNDING
    assert linear_nodes(merged) == linear_nodes(cut) - 1
    assert not any(node.op_type == "BatchNormalization" for node in merged.graph.node)


def test_merging_only_where_it_saves() -> None:
    """A skip from 4 to 40 channels behind a 3 x 3 convolution is cheaper on its own."""
    model = whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w2)"
        " s = Relu(b) y = Conv (s, w3)",
        {"w1": (4, 3, 3, 3), "w2": (40, 4, 3, 3), "w3": (2, 40, 1, 1)},
        inputs="float[N,3,8,8] x",
        outputs="float[N,2,8,8] y",
    )()
    bypassed = shaken(with_bypasses(model).model)
    cut, skips = cut_of(bypassed, ("b/sum",))
    assert len(skips) == 1
    assert merge_skips(cut, skips).SerializeToString() == cut.SerializeToString()


def test_steps_become_strides() -> None:
    model = whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a)"
        " p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r) b = Conv <pads=[1,1,1,1]> (p, w2)"
        " s = Relu(b) y = Conv (s, w3)",
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (2, 4, 1, 1)},
        inputs="float[N,3,8,8] x",
        outputs="float[N,2,4,4] y",
    )()
    cut, skips = cut_of(with_bypasses(model, start="fresh").model, ("b/sum",))
    merged = merge_skips(cut, skips)
    structure_ok(merged, cut)
    assert gap(merged, cut) < ROUNDING
    assert [node.op_type for node in merged.graph.node] == ["Conv", "Relu", "Conv"]
    assert floats(1).dtype == np.float32
    assert ints(1).dtype == np.int64


def test_a_users_own_layers_are_left_alone() -> None:
    model = whole(
        "a = Conv (x, w1) b = Conv (a, w2) r = Relu(b) c = Conv (r, w3) d = Relu(c)"
        " e = Conv (d, w4) g = Add(b, e) h = Relu(g) y = Conv (h, w5)",
        {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (4, 4, 1, 1),
         "w5": (2, 4, 1, 1)},
        inputs="float[N,3,8,8] x",
        outputs="float[N,2,8,8] y",
    )()  # fmt: skip
    cut, skips = cut_of(model, ("g",))
    assert skips == []
    assert merge_skips(cut, skips).SerializeToString() == cut.SerializeToString()
