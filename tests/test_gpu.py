"""The CUDA provider, where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune import Options, Target, prune
from onnxprune.errors import OnnxPruneError
from onnxprune.placement import placement
from onnxprune.runtime import Session

MODELS = Path(__file__).resolve().parents[1] / "models"

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def _cuda() -> None:
    try:
        Session(MODELS / "mlp_digits.onnx", provider="cuda")
    except OnnxPruneError as error:
        pytest.skip(f"no CUDA provider: {error}")


@pytest.mark.parametrize("name", ["mlp_digits", "resnet_digits", "vgg_digits"])
def test_cuda_prunes_as_the_cpu_does(name: str) -> None:
    samples = MODELS / "digits_calib.npz"
    images = np.load(samples)["input"]
    classes = {}
    for provider in ("cpu", "cuda"):
        options = Options(provider=provider, latency=False)  # type: ignore[arg-type]
        result = prune(MODELS / f"{name}.onnx", samples, Target("macs", 0.5), options=options)
        (scores,) = Session(result.model).run({"input": images})
        classes[provider] = scores.argmax(axis=1)
        assert result.report.after.macs <= 0.5 * result.report.before.macs
    assert np.mean(classes["cpu"] == classes["cuda"]) >= 0.98


def test_numbers_are_those_of_the_cpu() -> None:
    """In ten bits of mantissa they are a thousand times further apart."""
    feed = {"input": np.load(MODELS / "digits_calib.npz")["input"]}
    (wanted,) = Session(MODELS / "resnet_digits.onnx").run(feed)
    (found,) = Session(MODELS / "resnet_digits.onnx", provider="cuda").run(feed)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_nodes_are_said_to_run_on_the_gpu() -> None:
    feed = {"input": np.load(MODELS / "digits_calib.npz")["input"][:4]}
    found = placement(MODELS / "resnet_digits.onnx", feed, provider="cuda")
    assert found.nodes["CUDAExecutionProvider"] >= 20
    assert len(found.fell_back) == sum(found.nodes.values()) - found.nodes["CUDAExecutionProvider"]
    assert sum(found.time.values()) == pytest.approx(1.0)
