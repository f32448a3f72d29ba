"""Short names of groups: readable, within their room, and all different."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.group_labels import group_labels


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["/conv1/Conv", "/layer1/layer1.0/conv1/Conv"], ["conv1", "layer1.0/conv1"]),
        (["/net/a/Conv", "/net/b/Gemm"], ["a", "b"]),
        (["/block/qkv/MatMul", "/block/qkv/MatMul#2"], ["qkv", "qkv#2"]),
        (["/a/Conv", "/a/MatMul"], ["1: a", "2: a"]),
        (["Conv_12", "Conv_14"], ["Conv_12", "Conv_14"]),
        (["/Conv"], ["Conv"]),
        (["/"], ["/"]),
        (["/a/Convolve", "/b/Convolve"], ["a/Convolve", "b/Convolve"]),
        (["/x/" + "y" * 30 + "1/Conv", "/z/Conv"], ["…" + "y" * 18 + "1", "z"]),
    ],
)
def test_labels_say_what_differs(names, labels):
    assert group_labels(names, 20) == labels


@given(st.lists(st.text("/ab.#1", min_size=1), unique=True, max_size=8), st.integers(2, 12))
def test_labels_are_different_and_short(names, room):
    labels = group_labels(names, room)
    assert len(set(labels)) == len(names)
    assert all(label and len(label.split(": ")[-1]) <= room for label in labels)
