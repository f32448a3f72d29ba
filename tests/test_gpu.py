"""The CUDA provider, where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune import Options, Target, prune
from onnxprune.errors import OnnxPruneError
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
