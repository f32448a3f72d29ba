"""Slicing equals masking, and costs really fall, on networks as torch's exporters write them.

The networks are those of ``tools/networks``: small, with random weights, of the architectures that
people deploy. They need torch, torchvision, timm and onnxscript, and skip without them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from oracles import (
    Subject,
    distance,
    float_elements,
    masked,
    random_keeps,
    random_recovery,
    scattered,
    structure_ok,
    tolerance,
    weights_of,
)

from onnxprune.rewrite import apply
from onnxprune.runtime import Session
from onnxprune.survey import survey

TOOLS = Path(__file__).parents[1] / "tools"
NEEDED = ("torch", "torchvision", "timm", "onnxscript")
BATCHES = (1, 3)

FLOORS: dict[str, tuple[float | None, float | None, str]] = {
    "autoencoder": (0.55, 0.55, ""),
    "bert": (0.62, 0.62, "LayerNorm streams"),
    "bilstm": (0.73, 0.73, ""),
    "cait": (0.53, None, "LayerNorm streams"),
    "conv_3d": (0.61, 0.61, ""),
    "conv_gru": (0.73, 0.73, ""),
    "conv_tasnet": (0.43, 0.43, "streams under one-group GroupNorm"),
    "convnext": (0.33, 0.33, "LayerNorm streams"),
    "densenet": (0.64, 0.64, ""),
    "dpn": (0.73, None, ""),
    "efficientnet": (0.66, 0.66, ""),
    "espcn": (0.69, 0.69, ""),
    "eva": (None, 0.43, "LayerNorm streams"),
    "ghostnet": (0.71, None, ""),
    "gmlp": (0.0, None, "LayerNorm streams"),
    "gpt2": (0.55, 0.55, "LayerNorm streams"),
    "groupnorm": (0.74, 0.74, ""),
    "gru": (0.72, 0.72, ""),
    "inception": (0.74, 0.74, ""),
    "levit": (0.75, None, ""),
    "llama": (0.55, 0.55, "streams"),
    "lstm": (0.73, 0.73, ""),
    "many_inputs": (0.69, 0.69, ""),
    "mixer": (0.4, None, "LayerNorm streams"),
    "mobilenet_v2": (0.7, 0.7, ""),
    "mobilenet_v3": (0.66, 0.66, ""),
    "mobilenet_v4": (0.69, None, ""),
    "mobilevit": (0.67, None, "LayerNorm streams"),
    "nfnet": (0.67, None, ""),
    "pvt": (0.37, None, "LayerNorm streams"),
    "res2net": (0.57, None, ""),
    "resnest": (0.62, None, ""),
    "resnet_basic": (0.59, 0.59, ""),
    "resnet_bottleneck": (0.59, 0.59, ""),
    "resnet_cifar": (0.74, 0.74, ""),
    "resnext": (0.55, 0.55, ""),
    "shared_head": (0.73, 0.73, ""),
    "shufflenet_v1": (0.66, 0.66, ""),
    "shufflenet_v2": (0.59, 0.59, ""),
    "sknet": (0.59, None, ""),
    "squeezenet": (0.65, 0.65, ""),
    "swin": (0.56, 0.56, "LayerNorm streams"),
    "tied_autoencoder": (0.56, 0.56, ""),
    "transformer_encoder": (0.57, 0.57, "LayerNorm streams"),
    "twins": (0.57, None, "LayerNorm streams"),
    "unet": (0.74, 0.74, ""),
    "unet_bilinear": (0.74, 0.74, ""),
    "vit_fused": (0.54, 0.54, "LayerNorm streams"),
    "vit_multihead": (0.54, 0.54, "LayerNorm streams"),
    "vit_plain": (0.54, 0.54, "LayerNorm streams"),
    "vit_qk_norm": (0.42, 0.42, "LayerNorm streams"),
    "wave_classifier": (0.69, 0.69, ""),
    "xcit": (0.5, None, "LayerNorm streams"),
    "yolo": (0.72, 0.72, ""),
    "yolo_decoded": (0.72, None, ""),
}
"""Network -> what share of its MACs goes, at least, when half of every group does, if TorchScript
exported it and if dynamo did; and what stays whole. None: that exporter fails, or is left out to
save time."""

# The quickest of the TorchScript exports run every day, the rest with the slow tests.
QUICK = ("autoencoder", "espcn", "many_inputs", "squeezenet", "tied_autoencoder", "wave_classifier")
WITH_BATCH_NORM = (
    "autoencoder",
    "conv_3d",
    "mobilenet_v3",
    "resnet_basic",
    "shufflenet_v1",
    "shufflenet_v2",
    "unet",
    "yolo",
)


@dataclass(frozen=True)
class Exported:
    """An exported network with a source of inputs."""

    subject: Subject
    feed: Callable[[int], dict[str, np.ndarray]]


Export = Callable[[str, str], Exported]


@contextlib.contextmanager
def others_warnings() -> Iterator[None]:
    """Libraries that are imported here may use what their own dependencies deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def tool() -> ModuleType:
    """The module that exports."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with pytest.MonkeyPatch.context() as patch, others_warnings():
        patch.setattr(sys, "path", [*sys.path, str(TOOLS)])
        import export_networks

    export_networks.torch.set_num_threads(1)
    return export_networks


@pytest.fixture(scope="session")
def exported(tool: ModuleType) -> Export:
    """Exports a network once for all tests."""

    @functools.cache
    def export(name: str, exporter: str) -> Exported:
        topology = tool.TOPOLOGIES[name]

        def feed(batch: int) -> dict[str, np.ndarray]:
            values = topology.samples(batch, seed=batch)
            return {i.name: v.numpy() for i, v in zip(topology.inputs, values, strict=True)}

        return Exported(Subject(tool.export(topology, exporter)), feed)

    return export


def parameters() -> Iterator[object]:
    """Every (network, exporter); all but the quick ones are slow."""
    for name, (torchscript, dynamo, _) in FLOORS.items():
        if torchscript is not None:
            marks = () if name in QUICK else pytest.mark.slow
            yield pytest.param(name, "torchscript", marks=marks)
        if dynamo is not None:
            yield pytest.param(name, "dynamo", marks=pytest.mark.slow)
    for name in WITH_BATCH_NORM:
        yield pytest.param(name, "unfolded", marks=pytest.mark.slow)


EVERY = list(parameters())


def gap(exported: Exported, left: onnx.ModelProto, right: onnx.ModelProto) -> float:
    """How far two models lie apart, at worst, on batches of several sizes."""
    feeds = [exported.feed(batch) for batch in BATCHES]
    sessions = Session(left, threads=1), Session(right, threads=1)
    return max(distance(*(session.run(feed) for session in sessions)) for feed in feeds)


@pytest.mark.slow
def test_every_network_has_a_floor(tool: ModuleType) -> None:
    assert sorted(FLOORS) == sorted(tool.TOPOLOGIES)


@pytest.mark.parametrize(("name", "exporter"), EVERY)
def test_slicing_equals_masking(
    name: str, exporter: str, exported: Export, rng: np.random.Generator
) -> None:
    """Random counts, recovered weights; and the canonical form computes what the file does."""
    network = exported(name, exporter)
    subject = network.subject
    limit = tolerance(subject.network)
    assert gap(network, subject.canonical, subject.model) <= limit
    keeps = random_keeps(subject.network, rng)
    alive = subject.alive(keeps)
    recovered = random_recovery(subject, alive, rng)
    pruned = apply(subject.model, subject.plan(keeps), weights_of(recovered))
    structure_ok(pruned, subject.model)
    assert gap(network, pruned, scattered(subject, alive, recovered)) <= limit


@pytest.mark.parametrize(("name", "exporter"), EVERY)
def test_half_of_every_group_saves_macs(
    name: str, exporter: str, exported: Export, rng: np.random.Generator
) -> None:
    """Half of every group, the weights left are the old ones."""
    network = exported(name, exporter)
    subject = network.subject
    keeps = random_keeps(subject.network, rng, 0.5)
    pruned = apply(subject.model, subject.plan(keeps))
    structure_ok(pruned, subject.model)
    reference = masked(subject, subject.alive(keeps))
    assert gap(network, pruned, reference) <= tolerance(subject.network)
    floor = FLOORS[name][exporter == "dynamo"]
    assert floor is not None
    assert 1 - survey(pruned).macs / survey(subject.model).macs >= floor
    if floor:
        assert float_elements(pruned) < float_elements(subject.canonical)
