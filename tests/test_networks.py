"""Slicing equals masking on trained networks and on files of many exporters, where present."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from oracles import (
    EPS,
    Subject,
    distance,
    float_elements,
    masked,
    random_feed,
    random_keeps,
    random_recovery,
    run,
    scattered,
    structure_ok,
    tolerance,
    weights_of,
)

from onnxprune.errors import UnsupportedModelError
from onnxprune.model import load
from onnxprune.rewrite import apply

SHARED = Path(__file__).parents[2] / "shared"
CORPUS = sorted((SHARED / "corpus").glob("*.onnx"))
QUANTISED = {"models-shufflenet-v2-12-int8", "sparseml-detectionmodel"}
ODD_INPUTS = {
    "silero-vad-silero_vad-b",
    "silero-vad-silero_vad",
    "silero-vad-silero_vad_op18_ifless",
}
"""Networks whose states have the batch on another axis than random inputs do."""
IN_REPOSITORY = Path(__file__).parents[1] / "models"
OWN = sorted(IN_REPOSITORY.glob("*.onnx"))
slow = pytest.mark.slow

NETWORKS = [
    "anomaly_autoencoder",
    "keyword_spotting",
    "resnet20_cifar10",
    "resnet8_large_cifar10",
    "visual_wake_words_96",
    pytest.param("mobilenet_v2_imagenet", marks=slow),
    pytest.param("squeezenet1.1_imagenet", marks=slow),
    pytest.param("vgg16_cifar10", marks=slow),
]


def trained(name: str) -> Subject:
    path = SHARED / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return Subject(load(path))


def check(subject: Subject, rng: np.random.Generator) -> None:
    """Half of every group at random: without weights, then with recovered ones."""
    keeps = random_keeps(subject.network, rng, 0.5)
    alive = subject.alive(keeps)
    recovered = random_recovery(subject, alive, rng)
    feed = random_feed(subject.model, rng, 1, 32)
    for weights, reference in (
        ({}, masked(subject, alive)),
        (recovered, scattered(subject, alive, recovered)),
    ):
        pruned = apply(subject.model, subject.plan(keeps), weights_of(weights))
        structure_ok(pruned, subject.model)
        gap = distance(run(pruned, feed), run(reference, feed))
        assert gap <= tolerance(subject.network)
        assert float_elements(pruned) < float_elements(subject.canonical)


@pytest.mark.parametrize("name", NETWORKS)
def test_slicing_equals_masking_on_trained_networks(name: str, rng: np.random.Generator) -> None:
    check(trained(name), rng)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_slicing_equals_masking_on_the_small_networks(path: Path, rng: np.random.Generator) -> None:
    check(Subject(load(path)), rng)


def test_padding_shortcuts_do_not_freeze_the_streams() -> None:
    network = trained("resnet20_cifar10").network
    assert len(network.groups) == 12
    assert [f.reason for f in network.frozen] == ["graph output 'logits'"]
    branches = [group.size for group in network.groups if len(group.producers) == 1]
    streams = [group.size for group in network.groups if len(group.producers) > 1]
    assert branches == [16] * 3 + [32] * 3 + [64] * 3
    assert streams == [16, 16, 32]  # each stage adds as many channels as it takes over


@pytest.mark.skipif(not CORPUS, reason=f"{SHARED / 'corpus'} is not there")
def test_quantised_files_are_refused() -> None:
    for name in QUANTISED:
        with pytest.raises(UnsupportedModelError, match="prune the float model first"):
            _ = Subject(load(SHARED / "corpus" / f"{name}.onnx")).canonical


def as_cut(subject: Subject, rng: np.random.Generator) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    keeps = random_keeps(subject.network, rng, 0.5)
    reference = masked(subject, subject.alive(keeps))
    return apply(subject.model, subject.plan(keeps)), reference


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=slow if path.stem == "gtcrn-gtcrn" else ())
        for path in CORPUS
        if path.stem not in QUANTISED
    ],
)
def test_files_of_many_exporters_are_cut_or_say_why_not(path: Path) -> None:
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    subject = Subject(load(path))
    before = subject.model.SerializeToString(deterministic=True)
    assert subject.network.groups or subject.network.frozen
    assert all(f.reason for f in subject.network.frozen)
    pruned, reference = as_cut(subject, rng)
    assert subject.model.SerializeToString(deterministic=True) == before
    if well_formed(subject.model):
        structure_ok(pruned, subject.model)
    if subject.network.groups:
        assert float_elements(pruned) < float_elements(subject.canonical)
    if path.stem in ODD_INPUTS:
        assert not subject.network.groups  # nothing is cut, and there is nothing to compare
        return
    feed = random_feed(subject.model, rng, 1, 32)
    original = run(subject.model, feed)
    assert tensors_gap(run(pruned, feed), run(reference, feed)) <= tolerance(subject.network)
    canonical_gap = tensors_gap(run(subject.canonical, feed), original)
    assert canonical_gap <= 64 * EPS * (len(subject.network.producers) + 1)


def well_formed(model: onnx.ModelProto) -> bool:
    """Whether the file itself passes the strict checks, which some exporters' do not."""
    try:
        structure_ok(model, model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def tensors_gap(left: list[object], right: list[object]) -> float:
    """As ``distance``, all outputs on one scale, without those that are sequences of maps.

    The runtime's Sigmoid is exact to eps absolutely, so that scores close to zero lose digits.
    """
    pairs = [
        (a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1))
        for a, b in zip(left, right, strict=True)
        if isinstance(a, np.ndarray)
        and isinstance(b, np.ndarray)
        and np.issubdtype(a.dtype, np.floating)
    ]
    if not pairs:
        return 0.0
    return distance(
        [np.concatenate([a for a, _ in pairs])], [np.concatenate([b for _, b in pairs])]
    )
