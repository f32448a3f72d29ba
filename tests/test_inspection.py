"""What can be pruned and what cannot: figures computed by hand, and nothing missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import build
from micro_sections import REFUSED, RESIDUALS
from small_networks import MODELS, convolutions, perceptron

from onnxprune.canonical import canonicalise
from onnxprune.errors import OnnxPruneError
from onnxprune.groups import find_groups
from onnxprune.inspection import Inspection
from onnxprune.model import load
from onnxprune.operators import operators
from onnxprune.survey import survey

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
FIRST, SECOND = 8 * 3 * 9 * 64, 4 * 8 * 9 * 64
"""MACs of the two convolutions of ``convolutions()`` on 8 x 8 images."""


def branches() -> onnx.ModelProto:
    """Gemm 6 -> 10 -> 5, and Gemm 6 -> 7 into an operator nobody knows."""
    return build(
        "a = Gemm (x, w1) h = Relu (a) y = Gemm (h, w2) "
        "b = Gemm (x, w3) s = com.example.Strange (b) z = Gemm (s, w4)",
        {"w1": (6, 10), "w2": (10, 5), "w3": (6, 70), "w4": (70, 2)},
        inputs="float[N,6] x",
        outputs="float[N,5] y, float[N,2] z",
    )


def test_shares_of_two_convolutions_by_hand() -> None:
    found = survey(convolutions())
    assert found.inputs == {"x": (1, 3, 8, 8)}
    assert found.macs == FIRST + SECOND
    assert found.params == 8 * 27 + 8 + 4 * 72 + 4
    (group,) = found.groups
    assert (group.name, group.channels, group.parts) == ("Conv_0", 8, 1)
    assert (group.producers, group.consumers) == (("Conv_0",), ("Conv_2",))
    assert group.macs_share == group.params_share == found.prunable_macs_share == 1.0
    (frozen,) = found.frozen
    assert (frozen.name, frozen.frozen, frozen.channels) == ("Conv_2", 4, 4)
    assert frozen.macs_share == pytest.approx(SECOND / (FIRST + SECOND))
    assert frozen.params_share == pytest.approx((4 * 72 + 4) / found.params)


def test_shares_of_groups_and_frozen_layers_by_hand() -> None:
    found = survey(branches())
    total = 60 + 50 + 420 + 140
    assert found.macs == found.params == total
    (group,) = found.groups
    assert group.macs_share == found.prunable_macs_share == pytest.approx(110 / total)
    locking = [row for row in found.frozen if row.macs_share]
    assert {row.name: round(row.macs_share * total) for row in locking} == {
        "Gemm_1": 420,
        "Gemm_5": 140,
        "Gemm_4": 50,
    }
    assert sum(row.macs_share for row in found.reasons) == pytest.approx(
        sum(row.macs_share for row in found.frozen)
    )


def test_a_layer_is_in_the_share_of_each_group_it_belongs_to_and_once_in_the_total() -> None:
    model = build(
        "a = Gemm (x, w1) h = Relu (a) b = Gemm (h, w2) i = Relu (b) y = Gemm (i, w3)",
        {"w1": (6, 10), "w2": (10, 8), "w3": (8, 5)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )
    found = survey(model)
    shares = {row.name: row.macs_share * found.macs for row in found.groups}
    assert shares == pytest.approx({"Gemm_0": 60 + 80, "Gemm_2": 80 + 40})
    assert list(shares) == ["Gemm_0", "Gemm_2"]
    assert found.prunable_macs_share == 1.0


def test_a_partly_frozen_layer_locks_its_part() -> None:
    model = build(
        "c = Conv (x, w1) a, b = Split <axis=1> (c, sizes) h = Relu (a) y = Conv (h, w2) "
        "z = Relu (b)",
        {"w1": (8, 3, 1, 1), "w2": (4, 6, 1, 1), "sizes": np.array([6, 2], np.int64)},
        outputs="float[N,4,HY,WY] y, float[N,2,HZ,WZ] z",
    )
    found = survey(model)
    row = next(row for row in found.frozen if row.name == "Conv_0")
    assert (row.frozen, row.channels) == (2, 8)
    assert row.macs_share * found.macs == pytest.approx(2 * 3 * 64)


def test_an_unknown_operator_is_the_top_reason() -> None:
    top, second = survey(branches()).reasons
    assert top.reason == "no channel rule for Strange"
    assert (top.channels, top.macs_share) == (70, pytest.approx(420 / 670))
    assert (second.reason, second.producers, second.channels) == ("graph output", 2, 7)
    assert "no channel rule for Strange" in survey(branches()).table()


def test_reasons_of_different_nodes_are_one_reason() -> None:
    model = build(
        "a = Gemm (x, w1) s = com.example.Strange (a) b = Gemm (x, w2) "
        "t = com.example.Strange (b) y = Add (s, t)",
        {"w1": (6, 10), "w2": (6, 10)},
        inputs="float[N,6] x",
        outputs="float[N,10] y",
    )
    found = survey(model)
    assert len({row.reason for row in found.frozen if row.macs_share}) == 2
    (reason,) = found.reasons
    assert (reason.producers, reason.channels) == (len(found.frozen), 20)
    assert reason.macs_share == 1.0
    assert found.groups == []
    assert found.prunable_macs_share == 0.0
    assert "nothing can be pruned" in found.table()


def test_the_model_is_left_as_it_is() -> None:
    model = convolutions()
    before = model.SerializeToString()
    survey(model, {"x": (2, 3, 8, 8)})
    assert model.SerializeToString() == before


# --- shapes -------------------------------------------------------------------------------------

OPEN = "float[N,3,H,W] x"


def open_convolutions() -> onnx.ModelProto:
    """Two convolutions on images of any size, their mean read by a Gemm."""
    return build(
        "c = Conv (x, w1) h = Relu (c) m = GlobalAveragePool (h) f = Flatten (m) y = Gemm (f, w2)",
        {"w1": (8, 3, 1, 1), "w2": (8, 5)},
        inputs=OPEN,
        outputs="float[N,5] y",
    )


def test_macs_are_counted_with_what_is_known_and_the_rest_is_said() -> None:
    found = survey(open_convolutions())
    assert found.inputs == {"x": (1, 3, None, None)}
    assert found.macs == 24 + 40
    (note,) = found.notes
    assert "1 (Conv_0)" in note
    assert "give --shape for x [1, 3, ?, ?]" in note
    assert note in found.table()


def test_a_given_shape_is_counted_with() -> None:
    found = survey(open_convolutions(), {"x": (1, 3, 10, 20)})
    assert found.macs == 24 * 200 + 40
    assert found.notes == []
    assert survey(open_convolutions(), {"x": (2, 3, 10, 20)}).macs == 2 * found.macs


def test_extents_of_one_name_are_equal() -> None:
    model = build(
        "s = Add (x, z) c = Conv (s, w1) h = Relu (c) y = Conv (h, w2)",
        {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1)},
        inputs=f"{OPEN}, float[N,3,H,W] z",
    )
    found = survey(model, {"z": (2, 3, 5, 7)})
    assert found.inputs == {"x": (2, 3, 5, 7), "z": (2, 3, 5, 7)}
    assert found.macs == 2 * 35 * (24 + 32)


def test_an_extent_of_zero_is_any_extent() -> None:
    model = perceptron()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    assert survey(model).inputs == {"x": (1, 6)}
    assert survey(model).macs == 60 + 50
    images = open_convolutions()
    for dim in images.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 0
    found = survey(images)
    assert found.inputs == {"x": (1, 3, None, None)}
    assert found.macs == 24 + 40
    assert "1 (Conv_0)" in found.notes[0]


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        ({"y": (1, 3, 8, 8)}, "a shape is given for 'y', but the model's inputs are 'x'"),
        ({"w1": (8, 3, 3, 3)}, "a shape is given for 'w1'"),
        ({"x": (1, 3, 8)}, "[1, 3, 8] given for input 'x' does not fit [N, 3, 8, 8]"),
        ({"x": (1, 4, 8, 8)}, "[1, 4, 8, 8] given for input 'x' does not fit [N, 3, 8, 8]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], part: str) -> None:
    with pytest.raises(OnnxPruneError) as error:
        survey(convolutions(), shapes)
    assert part in str(error.value)


def test_sections_and_what_stands_in_their_way_are_listed() -> None:
    found = survey(RESIDUALS["nested"].build())
    outer, inner = found.sections
    assert outer.macs_share > inner.macs_share > 0
    assert set(inner.layers) < set(outer.layers)
    assert (outer.inputs, len(inner.layers)) == (("r",), 3)
    assert "section that can be dropped" in found.table()
    (refused,) = survey(REFUSED["equals"][0]()).frozen_sections
    assert "neither of its branches is a shortcut" in refused.reason


# --- nothing is missing -------------------------------------------------------------------------


def check_record(found: Inspection) -> None:
    """Shares are shares, rows are sorted, and the text shows what the record holds."""
    for rows in (found.groups, found.frozen, found.reasons, found.sections):
        shares = [row.macs_share for row in rows]
        assert shares == sorted(shares, reverse=True)
        assert all(0 <= row.macs_share <= 1 + 1e-9 for row in rows)
    assert sum(row.macs_share for row in found.frozen) <= 1 + 1e-9
    assert sum(row.producers for row in found.reasons) == len(found.frozen)
    text = found.table()
    assert all(row.name in text for row in found.groups)
    assert all(row.reason in text for row in found.reasons)
    assert all(row.name in text for row in (*found.sections, *found.frozen_sections))
    assert all(row.name in text for row in found.frozen if row.macs_share)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["macs"] == found.macs


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_every_group_and_frozen_producer_is_listed(path: Path) -> None:
    model = load(path)
    network = find_groups(canonicalise(model))
    found = survey(model)
    check_record(found)
    assert {row.name: row.producers for row in found.groups} == {
        group.name: group.producers for group in network.groups
    }
    assert {row.name for row in found.frozen} == {row.producer for row in network.frozen}
    lines = [line.split() for line in found.table().splitlines()]
    for row in (*found.groups, *found.frozen):
        assert any(row.name in line for line in lines)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no collection of models in {CORPUS}")
@pytest.mark.thinned
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.onnx")), ids=lambda path: path.stem)
def test_models_of_many_exporters_are_described_or_refused(path: Path) -> None:
    refusal = ""
    try:
        found = survey(load(path))
    except OnnxPruneError as error:
        refusal = str(error)
    if refusal:
        assert "the model is quantised" in refusal or "the oldest supported" in refusal
        return
    check_record(found)
    assert found.groups or found.frozen
    ruled = {f"no channel rule for {row.name}" for row in operators()}
    assert not ruled & {row.reason for row in found.reasons}
