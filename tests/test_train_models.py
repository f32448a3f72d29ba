"""Trained networks under autograd compute what onnxruntime makes of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from oracles import EPS, distance

torch = pytest.importorskip("torch")

from onnxprune.errors import UnsupportedModelError  # noqa: E402
from onnxprune.model import load  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.write_back import write_back  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
OWN = sorted((ROOT / "models").glob("*.onnx"))
NETWORKS = sorted((SHARED / "models").glob("*.onnx"))
CORPUS = sorted((SHARED / "corpus").glob("*.onnx"))

REFUSED = {
    "models-shufflenet-v2-12-int8": "QLinearConv",
    "silero-vad-silero_vad": "If",
    "silero-vad-silero_vad-b": "If",
    "silero-vad-silero_vad_op18_ifless": "If",
    "sparseml-detectionmodel": "ConvInteger",
    "windows-machine-learning-model": "ZipMap",
}
"""Files of the corpus that are not trained through, and an operator that the reason names."""

ROUNDING = 100 * EPS
"""Some hundred layers; every one rounds sums of some hundred products in another order."""
LOOSE = {
    # the largest of these outputs of Sigmoid is 3e-5, and onnxruntime computes it to 1e-7
    "libfacedetection_train-yunet_n_320_320": 1e-2,
    "libfacedetection_train-yunet_n_dynamic": 1e-2,
    # both evaluations are that far from one in double precision
    "magika-model": 1e-4,
    "olive-model": 2e-3,
    "windows-machine-learning-squeezenet_fp16": 1e-3,  # onnxruntime rounds to half precision
}
"""Files whose outputs are less alike, and how much."""


def feed_of(model: onnx.ModelProto, extent: int = 64) -> dict[str, np.ndarray]:
    """Random inputs; open extents behind the batch are as large as a small picture."""
    rng = np.random.default_rng(1)
    defaults = {tensor.name for tensor in model.graph.initializer}
    feed = {}
    for value in model.graph.input:
        if value.name in defaults:
            continue
        kind = value.type.tensor_type
        shape = [
            d.dim_value if d.dim_value > 0 else (1 if axis < 2 else extent)
            for axis, d in enumerate(kind.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        whole = np.issubdtype(dtype, np.integer)
        values = rng.integers(1, 20, shape) if whole else rng.standard_normal(shape)
        feed[value.name] = values.astype(dtype)
    return feed


def check(path: Path) -> None:
    model = load(path)
    network = TrainableNetwork(model).eval()
    feed = feed_of(model)
    wanted = Session(model, threads=1, optimization="none").run(feed)
    with torch.no_grad():
        found = network({name: torch.from_numpy(values) for name, values in feed.items()})
    results = [value.numpy() for value in found.values()]
    assert distance(results, wanted) < LOOSE.get(path.stem, ROUNDING)
    assert write_back(model, network).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_own_networks_agree(path: Path) -> None:
    check(path)


@pytest.mark.skipif(not NETWORKS, reason="needs the networks of ../shared")
@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_shared_networks_agree(path: Path) -> None:
    check(path)


@pytest.mark.skipif(not CORPUS, reason="needs the corpus of ../shared")
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_files_of_the_corpus_agree_or_say_why_not(path: Path) -> None:
    if path.stem not in REFUSED:
        check(path)
        return
    with pytest.raises(UnsupportedModelError, match=rf"{REFUSED[path.stem]} \('"):
        TrainableNetwork(load(path))
