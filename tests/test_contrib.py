"""Operators of onnxruntime, and normalisations: what is frozen on purpose, and why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build
from micro_transformers import TOKENS, WORDS
from oracles import Subject

from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups


def frozen_reasons(model: onnx.ModelProto) -> dict[str, str]:
    return {f.producer: f.reason for f in find_groups(canonicalise(model)).frozen}


# --- normalisation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("LRN <size=5> (c)", "LRN 'LRN_1' mixes its channels, in a window of 5 neighbours"),
        ("MeanVarianceNormalization <axes=[1]> (c)", "MeanVarianceNormalization"),
        ("LayerNormalization <axis=1> (c, k)", "LayerNormalization"),
        ("MaxUnpool <kernel_shape=[2,2]> (p, i)", "MaxPool 'MaxPool_1' does not carry axis 1"),
    ],
)
def test_channels_that_a_node_mixes_are_frozen_with_its_name(nodes: str, reason: str) -> None:
    pool = "p, i = MaxPool <kernel_shape=[2,2]> (c) " if "MaxUnpool" in nodes else ""
    model = build(f"{CONV_IN} {pool} h = {nodes} {CONV_OUT}", CONVS | {"k": (8, 8, 8)})
    assert reason in frozen_reasons(model)["Conv_0"]


@pytest.mark.parametrize(
    ("nodes", "opset", "op"),
    [
        ("com.microsoft.SkipLayerNormalization (a, r, k)", 17, "SkipLayerNormalization"),
        ("com.microsoft.SkipLayerNormalization (r, a, k)", 17, "SkipLayerNormalization"),
        (
            "com.microsoft.SkipSimplifiedLayerNormalization (r, a, k)",
            17,
            "SkipSimplifiedLayerNormalization",
        ),
        ("RMSNormalization (a, k)", 23, "RMSNormalization"),
        ("SimplifiedLayerNormalization (a, k)", 23, "RMSNormalization"),
        ("SimplifiedLayerNormalization (a, k)", 17, "ReduceMean"),
        ("LayerNormalization (a, k)", 13, "ReduceMean"),
    ],
)
def test_a_normalised_stream_is_frozen_with_the_node_that_mixes_it(
    nodes: str, opset: int, op: str
) -> None:
    model = build(
        f"a = MatMul (x, w1) r = Relu (a) h = {nodes} y = MatMul (h, w2)",
        {"w1": (6, 8), "k": (8,), "w2": (8, 5)},
        inputs=TOKENS,
        outputs=WORDS,
        opset=opset,
        ir=10,
    )
    assert f"{op} '" in frozen_reasons(model)["MatMul_0"]


STREAMS = [name for name in MICRO_MODELS if name.startswith(("FFN", "ConvNeXt"))]


@pytest.mark.parametrize("name", STREAMS)
def test_hidden_units_are_cut_and_the_normalised_stream_is_not(name: str) -> None:
    network = Subject(MICRO_MODELS[name]()).network
    (group,) = network.groups
    assert group.size == 12
    reasons = [f.reason for f in network.frozen if "graph output" not in f.reason]
    assert reasons
    assert all("Normalization '" in reason or "ReduceMean '" in reason for reason in reasons)


# --- operators left without a rule --------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ("b = com.microsoft.BiasAdd (c, k, c)", "BiasAdd"),
        ("b = com.microsoft.BiasDropout (c, k)", "BiasDropout"),
        ("b = com.microsoft.BiasSplitGelu (c, k)", "BiasSplitGelu"),
        ("b = com.microsoft.GroupNorm <groups=2, activation=0> (c, k, k)", "GroupNorm"),
        ("b = com.microsoft.SkipGroupNorm <groups=2, activation=0> (c, k, k, c)", "SkipGroupNorm"),
        ("b = com.microsoft.NhwcFusedConv (c, w3)", "NhwcFusedConv"),
        ('b = com.microsoft.FusedGemm <activation="Gelu"> (c, w3)', "FusedGemm"),
        ("t = SplitToSequence <axis=1> (c) b = SequenceAt (t, zero)", "SplitToSequence"),
    ],
)
def test_what_the_cpu_cannot_run_or_nobody_can_cut_freezes(nodes: str, op: str) -> None:
    model = build(
        f"{CONV_IN} {nodes} h = Identity (b) {CONV_OUT}",
        CONVS | {"k": (8,), "w3": (8, 8, 1, 1), "zero": np.zeros((), np.int64)},
    )
    assert f"no channel rule for {op} (" in frozen_reasons(model)["Conv_0"]


def test_layers_behind_embeddings_are_cut() -> None:
    model = build(
        "i = Cast <to=6> (x)"
        " s, m = com.microsoft.EmbedLayerNormalization (i, , word, place, , k, k)"
        " u = MatMul (s, w1) h = com.microsoft.Gelu (u) y = MatMul (h, w2)",
        {
            "word": (9, 8),
            "place": (7, 8),
            "k": (8,),
            "w1": (8, 12),
            "w2": (12, 5),
        },
        inputs="float[N,7] x",
        outputs=WORDS,
    )
    network = find_groups(canonicalise(model))
    assert [group.size for group in network.groups] == [12]
    assert {f.producer: f.reason for f in network.frozen}["EmbedLayerNormalization_1"] == (
        "no channel rule for EmbedLayerNormalization ('EmbedLayerNormalization_1')"
    )


def test_offsets_stay_and_their_channels_keep_equal_counts() -> None:
    network = Subject(MICRO_MODELS["DeformConv, two sets of offsets"]()).network
    assert [(group.size, group.part_count) for group in network.groups] == [(8, 2), (6, 1)]
    reasons = {f.producer: f.reason for f in network.frozen}
    assert reasons["Conv_1"] == "DeformConv 'DeformConv_3' places its window by 'o'"
