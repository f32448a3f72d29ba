"""Trained networks from elsewhere, through the whole main path, where they are present."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnxprune import Options, Target, prune
from onnxprune.cli import main
from onnxprune.runtime import Session

SHARED = Path(__file__).parents[2] / "shared"

pytestmark = pytest.mark.skipif(
    not (SHARED / "models").is_dir(), reason="the shared models are not present"
)


def cifar() -> ModuleType:
    """The reader that lies beside the images."""
    path = SHARED / "data" / "cifar10" / "load.py"
    spec = importlib.util.spec_from_file_location("cifar_load", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    session = Session(model)
    (name,) = session.inputs
    found = [session.run({name: part})[0].argmax(axis=1) for part in np.split(images, 10)]
    return float((np.concatenate(found) == labels).mean())


@pytest.mark.slow
def test_resnet20_keeps_its_accuracy_at_three_quarters_of_the_macs():
    load = cifar()
    images, _ = load.images("lossless_train", 500)
    path = SHARED / "models" / "resnet20_cifar10.onnx"
    result = prune(
        path, load.normalised(images), Target("macs", 0.75), options=Options(latency=False)
    )
    test, labels = load.images("lossless_test")
    before = accuracy(onnx.load(path), load.normalised(test), labels)
    after = accuracy(result.model, load.normalised(test), labels)
    assert before == pytest.approx(0.915, abs=0.002)
    assert after >= 0.87
    assert result.report.after.macs <= 0.75 * result.report.before.macs


def samples(model: onnx.ModelProto, count: int = 100) -> dict[str, np.ndarray]:
    """Noise, or images as they are where the model takes CIFAR's."""
    rng = np.random.default_rng(0)
    found = {}
    for value in model.graph.input:
        extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        found[value.name] = rng.standard_normal((count, *extents)).astype(np.float32)
        if extents == [3, 32, 32]:
            images, _ = cifar().images("lossless_train", count)
            found[value.name] = np.moveaxis(images, -1, 1).astype(np.float32)
    return found


SMALL = ("anomaly_autoencoder", "visual_wake_words_96", "resnet8_large_cifar10")
LARGE = (
    "mobilenet_v2_imagenet",
    "resnet56_cifar10",
    "shufflenet_v2_imagenet",
    "squeezenet1.1_imagenet",
    "vgg16_cifar10",
)


@pytest.mark.parametrize(
    ("name", "count", "allocation"),
    [("keyword_spotting", 100, "sensitivity")]
    + [pytest.param(name, 100, "sensitivity", marks=pytest.mark.slow) for name in SMALL]
    + [pytest.param(name, 24, "uniform", marks=pytest.mark.slow) for name in LARGE],
)
def test_the_command_prunes(name, count, allocation, tmp_path, capsys):
    path = SHARED / "models" / f"{name}.onnx"
    model = onnx.load(path)
    feeds = samples(model, count)
    np.savez(tmp_path / "calib.npz", **feeds)
    out = tmp_path / "out.onnx"
    words = [path, out, "--calib", tmp_path / "calib.npz", "--target", "ratio=0.3", "--json"]
    words += ["--allocation", allocation]
    assert main([str(word) for word in words]) == 0
    record = json.loads(capsys.readouterr().out)
    groups = record["groups"]
    assert sum(g["kept"] for g in groups) <= 0.7 * sum(g["size"] for g in groups)
    assert record["after"]["macs"] < record["before"]["macs"]
    onnx.checker.check_model(out, full_check=True)
    pruned = onnx.load(out)
    assert pruned.graph.input == model.graph.input
    assert pruned.graph.output == model.graph.output
    feed = {key: values[:1] for key, values in feeds.items()}
    for before, after in zip(Session(model).run(feed), Session(pruned).run(feed), strict=True):
        assert before.shape == after.shape
        assert np.isfinite(after).all()
    assert out.stat().st_size < path.stat().st_size
