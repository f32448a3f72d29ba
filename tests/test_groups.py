"""Groups: names, makers and readers, and where the channels lie."""

from __future__ import annotations

import numpy as np
import pytest
from micro_models import MICRO_MODELS, build, ints
from oracles import Subject

from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups
from onnxprune.network import FROZEN, Network


def network(name: str) -> Network:
    return Subject(MICRO_MODELS[name]()).network


def test_a_residual_stream_is_one_group_with_all_its_makers_and_readers() -> None:
    stream, branch = network("residual").groups
    assert stream.name == "Conv_0"
    assert stream.size == 8
    assert stream.producers == ("Conv_0", "Conv_4")
    assert stream.consumers == ("Conv_2", "Conv_7")
    assert (branch.producers, branch.consumers) == (("Conv_2",), ("Conv_4",))


def test_a_consumer_of_a_concat_reads_several_groups() -> None:
    found = network("Concat")
    a, b = found.groups
    assert (a.size, b.size) == (5, 7)
    assert a.consumers == b.consumers
    assert len(a.consumers) == 2
    reader = found.consumers[a.consumers[0]]
    channels = found.channels(reader.node.inputs[0], reader.x_axis)
    assert channels.tolist() == [*a.channels, *b.channels]


def test_split_halves_are_groups_of_their_own_with_numbered_names() -> None:
    found = network("Split")
    names = [group.name for group in found.groups]
    assert names == ["Conv_0", "Conv_0#2", "Conv_2"]
    assert len(set(names)) == len(names)


def test_a_flattened_map_repeats_every_channel() -> None:
    found = network("Flatten")
    (group,) = found.groups
    reader = found.consumers[group.consumers[0]]
    channels = found.channels(reader.node.inputs[0], reader.x_axis)
    assert channels.tolist() == np.repeat(group.channels, 16).tolist()
    last = network("Reshape channels last")
    reader = last.consumers[last.groups[0].consumers[0]]
    channels = last.channels(reader.node.inputs[0], reader.x_axis)
    assert channels.tolist() == np.tile(last.groups[0].channels, 16).tolist()


def test_depthwise_convolutions_make_no_group_of_their_own() -> None:
    (group,) = network("Conv depthwise").groups
    assert group.producers == ("Conv_0", "Conv_2")
    assert group.consumers == ("Conv_4",)


def test_grouped_convolutions_balance_what_they_read_and_what_they_make() -> None:
    read, middle, made = network("Conv grouped chain").groups
    assert (read.size, read.part_count) == (8, 4)
    assert (middle.size, middle.part_count) == (16, 4)
    assert (made.size, made.part_count) == (6, 2)
    assert middle.parts.tolist() == np.repeat(range(4), 4).tolist()


def test_the_input_of_a_network_holds_no_channels() -> None:
    found = network("Conv")
    image = found.graph.inputs[0]
    assert found.channels(image, 1).tolist() == [FROZEN] * 3
    assert found.channels(image, 0).tolist() == []  # its extent is not known


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_channels_are_numbered_group_by_group_and_every_group_is_made_and_read(name: str) -> None:
    found = network(name)
    numbers = np.concatenate([group.channels for group in found.groups])
    assert np.array_equal(numbers, np.arange(numbers.size))
    assert len({group.name for group in found.groups}) == len(found.groups)
    for group in found.groups:
        assert group.producers
        assert group.consumers or group.contractions
        assert group.parts.shape == group.channels.shape
        assert np.unique(np.bincount(group.parts)).size == 1


@pytest.mark.parametrize("name", ["residual", "Split", "Conv grouped chain"])
def test_groups_are_the_same_each_time(name: str) -> None:
    one, two = network(name), network(name)
    assert [g.name for g in one.groups] == [g.name for g in two.groups]
    assert all(
        np.array_equal(a.channels, b.channels) and np.array_equal(a.parts, b.parts)
        for a, b in zip(one.groups, two.groups, strict=True)
    )
    assert one.frozen == two.frozen


def test_frozen_producers_say_how_many_of_their_channels_are_frozen() -> None:
    model = build(
        "c = Conv(x, w1) p = Slice(c, start, end, axes) l = LRN <size=3> (p) d = Conv(l, w2)"
        " e = Conv(c, w3) y = Add(d, e)",
        {
            "w1": (8, 3, 3, 3),
            "w2": (4, 3, 1, 1),
            "w3": (4, 8, 1, 1),
            "start": ints(0),
            "end": ints(3),
            "axes": ints(1),
        },
    )
    found = find_groups(canonicalise(model))
    (partly,) = [f for f in found.frozen if f.producer == "Conv_0"]
    assert (partly.frozen, partly.size) == (3, 8)
    assert "LRN" in partly.reason
    assert [group.size for group in found.groups] == [5]


def test_nodes_with_weights_and_without_rule_are_listed() -> None:
    model = build(
        "c = com.example.Strange(x, w1) h = Relu(c) y = Conv(h, w2)",
        {"w1": (3, 8, 3, 3), "w2": (4, 8, 3, 3)},
    )
    found = find_groups(canonicalise(model))
    reasons = {f.producer: f.reason for f in found.frozen}
    assert reasons["Strange_0"] == "no channel rule for Strange ('Strange_0')"
    assert "a shape is not known" in reasons["Conv_2"]
