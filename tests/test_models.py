from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parents[1] / "models"
PATHS = sorted(MODELS.glob("*.onnx"))


def table() -> dict[str, dict[str, float]]:
    """Read the numbers of the first table of the README, by file name."""
    row = r"^\| `(\w+\.onnx)` \| ([\d,]+) \| ([\d,]+) \| (\d+) kB \| ([\d.]+) % \|$"
    found = re.findall(row, (MODELS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    columns = ("params", "macs", "kilobytes", "accuracy")
    return {
        name: dict(zip(columns, (float(text.replace(",", "")) for text in texts), strict=True))
        for name, *texts in found
    }


def images(name: str, key: str = "input") -> NDArray:
    with np.load(MODELS / name) as arrays:
        return arrays[key]


def run(path: Path, batch: NDArray) -> NDArray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": batch})[0]


def test_readme_lists_every_model():
    assert [path.name for path in PATHS] == sorted(table())
    assert len(PATHS) == 3


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
class TestModel:
    def test_is_valid_and_small(self, path):
        onnx.checker.check_model(str(path), full_check=True)
        assert path.stat().st_size < 1_000_000

    def test_size_and_params_match_readme(self, path):
        row = table()[path.name]
        assert round(path.stat().st_size / 1000) == row["kilobytes"]
        # running statistics are initializers of BatchNormalization, but no parameters
        sizes = [
            np.prod(initializer.dims)
            for initializer in onnx.load(path).graph.initializer
            if "running_" not in initializer.name
        ]
        assert sum(sizes) == row["params"]

    def test_keeps_batch_norm(self, path):
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        assert kinds.count("BatchNormalization") == kinds.count("Conv")

    @pytest.mark.parametrize("batch", [1, 3])
    def test_runs_at_any_batch_size(self, path, batch):
        some = images("digits_test.npz")[:batch]
        logits = run(path, some)
        assert logits.shape == (batch, 10)
        one_by_one = np.concatenate([run(path, image[None]) for image in some])
        np.testing.assert_allclose(logits, one_by_one, rtol=1e-4, atol=1e-4)

    def test_accuracy_matches_readme(self, path):
        predicted = run(path, images("digits_test.npz")).argmax(axis=1)
        accuracy = 100 * np.mean(predicted == images("digits_test.npz", "labels"))
        assert accuracy == pytest.approx(table()[path.name]["accuracy"], abs=0.1)


def test_data_has_the_layout_of_the_input():
    for name in ("digits_calib.npz", "digits_test.npz"):
        pixels = images(name)
        assert pixels.dtype == np.float32
        assert pixels.shape == (500, 1, 8, 8)
        assert pixels.min() == 0
        assert pixels.max() == 1
    assert set(images("digits_test.npz", "labels")) == set(range(10))


def test_calibration_and_test_images_are_disjoint():
    calibration = {image.tobytes() for image in images("digits_calib.npz")}
    test = {image.tobytes() for image in images("digits_test.npz")}
    assert not calibration & test
