"""Allowed counts: the floor, multiples, and never out of onnxruntime's blocked layout."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from micro_models import build
from small_networks import convolutions, perceptron

from onnxprune.alignment import Align, allowed_counts, block_size
from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups
from onnxprune.network import ChannelGroup, Network
from onnxprune.plan import Keep, Plan
from onnxprune.rewrite import apply, digest


def network(model: onnx.ModelProto) -> Network:
    return find_groups(canonicalise(model))


def chain(width: int) -> onnx.ModelProto:
    return convolutions(w1=(width, 3, 3, 3), b1=(width,), w2=(4, width, 3, 3))


def depthwise(width: int, multiplier: int = 1) -> onnx.ModelProto:
    wide = width * multiplier
    middle = f"r = Relu(c) h = Conv <pads=[1,1,1,1], group={width}> (r, w3)"
    weights = {"w1": (width, 3, 3, 3), "b1": (width,), "w3": (wide, 1, 3, 3)}
    return convolutions(middle, w2=(4, wide, 3, 3), **weights)


def grouped(width: int, parts: int) -> onnx.ModelProto:
    middle = f"r = Relu(c) d = Conv <pads=[1,1,1,1], group={parts}> (r, w3) h = Relu(d)"
    weights = {"w1": (width, 3, 3, 3), "b1": (width,), "w3": (width, width // parts, 3, 3)}
    return convolutions(middle, w2=(4, width, 3, 3), **weights)


def allowed(model: onnx.ModelProto, align: Align = "auto", block: int = 8) -> list[list[int]]:
    found = network(model)
    return [allowed_counts(group, found, align, block).tolist() for group in found.groups]


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("width", [8, 12, 32, 64])
def test_a_convolution_reads_few_channels_or_a_multiple_of_4(width, block):
    floor = math.ceil(width / 10)
    wanted = [n for n in range(floor, width + 1) if n < block or n % 4 == 0]
    assert allowed(chain(width), block=block) == [wanted]


@pytest.mark.parametrize("width", [9, 30, 33])
def test_a_convolution_that_was_not_in_the_layout_is_unrestricted(width):
    assert allowed(chain(width)) == [list(range(math.ceil(width / 10), width + 1))]


def test_a_depthwise_convolution_has_a_multiple_of_4():
    assert allowed(depthwise(32)) == [[4, 8, 12, 16, 20, 24, 28, 32]]
    assert allowed(depthwise(8)) == [[4, 8]]
    assert allowed(depthwise(30)) == [list(range(3, 31))]


def test_a_channel_multiplier_is_never_in_the_layout():
    """Two outputs per input channel: no depthwise kernel takes them, 1 is no whole block."""
    (counts,) = allowed(depthwise(5, 2))
    assert counts == list(range(1, 6))


def test_a_grouped_convolution_has_whole_blocks_per_part():
    assert allowed(grouped(64, 2)) == [[16, 32, 48, 64], [16, 32, 48, 64]]
    assert allowed(grouped(64, 2), block=16) == [[32, 64], [32, 64]]


def test_a_grouped_convolution_that_was_not_in_the_layout_is_unrestricted():
    """Parts of 6 are no whole block; what reads them still wants a multiple of 4."""
    inner, outer = allowed(grouped(12, 2))
    assert inner == [2, 4, 6, 8, 10, 12]
    assert outer == [2, 4, 6, 8, 12]


def test_every_reader_counts():
    middle = "r = Relu(c) d = Conv <pads=[1,1,1,1], group=32> (r, w3) h = Add(r, d)"
    weights = {"w1": (32, 3, 3, 3), "b1": (32,), "w3": (32, 1, 3, 3), "w2": (4, 32, 3, 3)}
    assert allowed(convolutions(middle, **weights)) == [[4, 8, 12, 16, 20, 24, 28, 32]]


def test_channels_of_other_groups_are_counted_as_whole():
    """Conv reads 6 + 10 channels: an even number of one group may leave a multiple of 4."""
    nodes = "c = Conv <pads=[1,1,1,1]> (x, w1) d = Conv <pads=[1,1,1,1]> (x, w3)"
    nodes += " h = Concat <axis=1> (c, d) y = Conv <pads=[1,1,1,1]> (h, w2)"
    weights = {"w1": (6, 3, 3, 3), "w3": (10, 3, 3, 3), "w2": (4, 16, 3, 3)}
    small, large = allowed(build(nodes, weights))
    assert small == [2, 6]
    assert large == [1, 2, 6, 10]


def test_matrix_products_are_unrestricted():
    assert allowed(perceptron(50)) == [list(range(5, 51))]


@pytest.mark.parametrize(("width", "floor"), [(3, 1), (10, 1), (11, 2), (30, 3), (70, 7), (99, 10)])
def test_a_tenth_is_always_kept(width, floor):
    (counts,) = allowed(perceptron(width), align=1)
    assert counts == list(range(floor, width + 1))


def test_multiples_of_n_and_the_full_count():
    assert allowed(chain(20), align=8) == [[8, 16, 20]]
    assert allowed(chain(20), align=1) == [list(range(2, 21))]
    assert allowed(chain(20), align=32) == [[20]]


def test_parts_stay_balanced():
    """Four parts: only multiples of 4, whatever the alignment; the floor is rounded up to one."""
    found = network(grouped(24, 4))
    assert all(group.part_count == 4 for group in found.groups)
    for align in ("auto", 1, 6):
        for group in found.groups:
            counts = allowed_counts(group, found, align, 8)
            assert (counts % 4 == 0).all()
            assert counts[0] >= 4
            assert counts[-1] == 24


def blocked_convolutions(model: onnx.ModelProto, folder) -> int:
    """How many convolutions onnxruntime computes in its blocked layout."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    return sum(n.op_type == "Conv" and n.domain == "com.microsoft.nchwc" for n in nodes)


def pruned(model: onnx.ModelProto, group: ChannelGroup, count: int) -> onnx.ModelProto:
    per_part = count // group.part_count
    units = [np.flatnonzero(group.parts == part)[:per_part] for part in range(group.part_count)]
    keep = tuple(np.sort(np.concatenate(units)).tolist())
    return apply(model, Plan(digest(model), (Keep(group.name, keep, group.size),)))


@pytest.mark.parametrize(
    "model", [chain(40), depthwise(24), grouped(64, 2)], ids=["chain", "depthwise", "grouped"]
)
def test_onnxruntime_agrees(model, tmp_path):
    """On this machine, with its block: allowed counts keep every convolution in the layout."""
    before = blocked_convolutions(model, tmp_path)
    if not before:
        pytest.skip("onnxruntime has no blocked layout on this processor")
    found = network(model)
    for group in found.groups:
        good = allowed_counts(group, found)
        for count in good.tolist():
            assert blocked_convolutions(pruned(model, group, count), tmp_path) == before, count
        bad = np.setdiff1d(np.arange(block_size() + 1, group.size, group.part_count), good)
        for count in bad[bad % group.part_count == 0][:2].tolist():
            assert blocked_convolutions(pruned(model, group, count), tmp_path) < before, count
