"""Sections as training sees them, and cutting them out of a model that keeps everything else."""

from __future__ import annotations

import zlib
from itertools import combinations

import numpy as np
import onnx
import pytest
from micro_models import chain
from micro_sections import REFUSED, RESIDUALS, SAME, without
from onnx import helper, numpy_helper
from oracles import Subject, outputs_match, structure_ok, tolerance

from onnxprune.train.gated_sections import GatedSection, Wiring, gated_sections, remaining
from onnxprune.train.section_cut import without_sections


def normalised(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy with a BatchNorm of random statistics behind every Conv."""
    rng = np.random.default_rng(seed)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes = []
    for node in copy.graph.node:
        nodes.append(node)
        if node.op_type != "Conv":
            continue
        width = weights[node.input[1]].dims[0]
        values = [rng.uniform(0.5, 1.5, width) for _ in range(4)]
        names = [f"{node.output[0]}.{part}" for part in ("scale", "shift", "mean", "variance")]
        copy.graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in zip(names, values, strict=True)
        )
        made = node.output[0]
        node.output[0] = f"{made} before"
        nodes.append(helper.make_node("BatchNormalization", [node.output[0], *names], [made]))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


MODELS = {name: residual.build for name, residual in RESIDUALS.items()}
NORMALISED = [
    name
    for name, build in MODELS.items()
    if any(node.op_type == "Conv" for node in build().graph.node)
]


def subsets(found: tuple[GatedSection, ...]) -> list[tuple[GatedSection, ...]]:
    return [
        chosen for size in range(1, len(found) + 1) for chosen in combinations(found, size)
    ]  # fmt: skip


def check_cuts(model: onnx.ModelProto, name: str) -> None:
    """Every subset of the sections, cut, computes what multiplying the branches by zero does."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    before = model.SerializeToString()
    found = gated_sections(model).found
    assert {s.total: s.made for s in found} == RESIDUALS[name].sections
    limit = tolerance(Subject(model).network)
    for chosen in subsets(found):
        cut = without_sections(model, chosen)
        structure_ok(cut, model)
        reference = without(model, {section.total: (section.made, None) for section in chosen})
        outputs_match(cut, reference, limit, rng)
        left = {name for node in cut.graph.node for name in node.output}
        assert not left & {made for section in chosen for made in section.nodes}
        read = {name for node in cut.graph.node for name in node.input}
        assert {tensor.name for tensor in cut.graph.initializer} <= read
    assert model.SerializeToString() == before


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_cut_section_is_one_that_is_multiplied_by_zero(name: str) -> None:
    check_cuts(MODELS[name](), name)


@pytest.mark.parametrize("name", NORMALISED)
def test_so_it_is_with_batchnorms(name: str) -> None:
    check_cuts(normalised(MODELS[name](), 0), name)


def test_what_stays_is_what_it_was() -> None:
    model = normalised(MODELS["pre-activation"](), 0)
    model.producer_name, model.graph.doc_string = "somebody", "a note"
    model.metadata_props.add(key="labels", value="a,b")
    for node in model.graph.node:
        node.doc_string = f"makes {node.output[0]}"
    unused = numpy_helper.from_array(np.ones(3, np.float32), "unused")
    model.graph.initializer.append(unused)
    first, _ = gated_sections(model).found
    cut = without_sections(model, [first])
    gone = {*first.nodes, first.total}
    reader = "g"
    for node in cut.graph.node:
        original = next(n for n in model.graph.node if n.output[0] == node.output[0])
        assert node.output[0] not in gone
        if reader not in original.input:
            assert node == original
    originals = {tensor.name: tensor for tensor in model.graph.initializer}
    assert all(tensor == originals[tensor.name] for tensor in cut.graph.initializer)
    assert "unused" in {tensor.name for tensor in cut.graph.initializer}
    assert (cut.producer_name, cut.graph.doc_string) == ("somebody", "a note")
    assert cut.metadata_props == model.metadata_props


def test_one_of_two_rectifiers_is_left() -> None:
    model = MODELS["post-activation"]()
    (section,) = gated_sections(model).found
    relus = sum(node.op_type == "Relu" for node in model.graph.node)
    cut = without_sections(model, [section])
    inside = sum(
        node.op_type == "Relu" for node in model.graph.node if node.output[0] in section.nodes
    )
    assert sum(node.op_type == "Relu" for node in cut.graph.node) == relus - inside - 1


def test_a_sum_that_is_an_output_keeps_its_name() -> None:
    model = MODELS["sum that is an output"]()
    (section,) = gated_sections(model).found
    cut = without_sections(model, [section])
    (node,) = (node for node in cut.graph.node if "y" in node.output)
    assert (node.op_type, list(node.input)) == ("Identity", ["r"])


# --- what is left and what is not ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["nested", "attention and feed-forward", "sum of two layers"])
def test_sections_that_are_left_are_found_in_what_is_left(name: str) -> None:
    model = MODELS[name]()
    found = gated_sections(model).found
    inner, outer = found
    cut = without_sections(model, [inner])
    (left,) = remaining(Wiring.of(cut), found)
    assert (left.name, left.total) == (outer.name, outer.total)
    assert left.made in {n for node in cut.graph.node for n in node.output}
    both = without_sections(cut, [left])
    assert both.SerializeToString() == without_sections(model, found).SerializeToString()
    assert remaining(Wiring.of(both), found) == []


@pytest.mark.parametrize("name", REFUSED)
def test_no_gate_where_there_is_no_section(name: str) -> None:
    build, _ = REFUSED[name]
    sections = gated_sections(build())
    assert sections.found == ()
    assert sections.frozen


def test_joins_that_are_not_in_the_model_itself_get_no_gate() -> None:
    model = chain(
        f"r = Relu(c) d = Conv {SAME} (r, w3, b3) e = Relu(d) f = Conv {SAME} (e, w4, b4)"
        " g = Add(f, r) h = Relu(g)",
        {"w3": (6, 8, 3, 3), "b3": (6,), "w4": (8, 6, 3, 3), "b4": (8,)},
    )()
    (join,) = (node for node in model.graph.node if node.output[0] == "g")
    join.op_type = "Sum"
    join.input.append("c")
    assert gated_sections(model).found == ()
