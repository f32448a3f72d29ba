"""Packed queries, keys and values are split before they are divided into heads."""

from __future__ import annotations

import onnx
import pytest
from micro_models import MICRO_MODELS
from onnx import helper
from oracles import EPS, outputs_match

from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups

PACKED = [name for name in MICRO_MODELS if name.startswith("attention, packed")]


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", PACKED)
def test_heads_and_both_widths_are_groups_of_their_own(name: str) -> None:
    groups = find_groups(canonicalise(MICRO_MODELS[name]())).groups
    assert sorted(group.size for group in groups) == [4, 6, 6]
    (queries,) = [group for group in groups if group.contractions]
    assert not queries.consumers


@pytest.mark.parametrize("name", PACKED)
def test_taken_apart_it_computes_the_same(name: str, rng) -> None:
    model = MICRO_MODELS[name]()
    canonical = canonicalise(model)
    assert ops(canonical).count("Split") == 1
    outputs_match(canonical, model, 64 * EPS, rng)


def test_a_packed_tensor_that_is_an_output_stays_whole() -> None:
    model = MICRO_MODELS["attention, packed"]()
    shape = ["a", "b", "c", "d", "e"]
    model.graph.output.append(helper.make_tensor_value_info("turned", 1, shape))
    assert "Split" not in ops(canonicalise(model))


def test_a_reader_of_all_parts_keeps_them_together() -> None:
    model = MICRO_MODELS["attention, packed"]()
    model.graph.node.append(helper.make_node("ReduceMean", ["turned"], ["z"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("z", 1, []))
    assert "Split" not in ops(canonicalise(model))


def test_a_part_that_is_an_output_is_still_one(rng) -> None:
    model = MICRO_MODELS["attention, packed and sliced"]()
    model.graph.output.append(helper.make_tensor_value_info("v1", 1, [1, "N", 4, 7, 6]))
    canonical = canonicalise(model)
    assert ops(canonical).count("Split") == 1
    outputs_match(canonical, model, 64 * EPS, rng)
