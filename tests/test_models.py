from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnxprune import Options, Result, Target, prune
from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups

MODELS = Path(__file__).resolve().parents[1] / "models"
PATHS = sorted(MODELS.glob("*.onnx"))
TRANSFORMER = MODELS / "vit_digits.onnx"
KEPT = 0.6
LOSS = 1.0
"""Points of accuracy: none was lost with calibration splits by seeds 0 to 4, 1.2 to 2.2 without
recovery."""


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


def accuracy(path: Path) -> float:
    predicted = run(path, images("digits_test.npz")).argmax(axis=1)
    return float(100 * np.mean(predicted == images("digits_test.npz", "labels")))


def counted_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates for one image, from the shapes that onnxruntime gives each tensor.

    Every element of an output takes one for each value that it sums over.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    known = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {name for node in nodes for name in (*node.input[:2], *node.output)}
    names = sorted(wanted - set(known) - {"input", "logits"})
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = images("digits_test.npz")[:1]
    arrays = session.run(["logits", *names], {"input": image})
    known |= {"input": image.shape}
    known |= {name: a.shape for name, a in zip(["logits", *names], arrays, strict=True)}
    total = 0
    for node in nodes:
        data, weight = known[node.input[0]], known[node.input[1]]
        summed = np.prod(weight[1:]) if node.op_type == "Conv" else data[-1]
        total += int(np.prod(known[node.output[0]]) * summed)
    return total


def test_readme_lists_every_model():
    assert [path.name for path in PATHS] == sorted(table())
    assert len(PATHS) == 4


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

    def test_macs_match_readme(self, path):
        assert counted_macs(onnx.load(path)) == table()[path.name]["macs"]

    def test_keeps_norm(self, path):
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        if path.stem == "vit_digits":
            assert kinds.count("LayerNormalization") == 9
        else:
            assert kinds.count("BatchNormalization") == kinds.count("Conv")

    @pytest.mark.parametrize("batch", [1, 3])
    def test_runs_at_any_batch_size(self, path, batch):
        some = images("digits_test.npz")[:batch]
        logits = run(path, some)
        assert logits.shape == (batch, 10)
        one_by_one = np.concatenate([run(path, image[None]) for image in some])
        np.testing.assert_allclose(logits, one_by_one, rtol=1e-4, atol=1e-4)

    def test_accuracy_matches_readme(self, path):
        assert accuracy(path) == pytest.approx(table()[path.name]["accuracy"], abs=0.1)


@pytest.fixture(scope="module")
def pruned() -> Result:
    calibration = MODELS / "digits_calib.npz"
    return prune(TRANSFORMER, calibration, Target("macs", KEPT), options=Options(latency=False))


class TestTransformer:
    """The vision transformer is cut in every kind of channels that it has."""

    def test_heads_widths_and_hidden_units_are_groups(self):
        groups = find_groups(canonicalise(onnx.load(TRANSFORMER))).groups
        sizes = {group.name: group.size for group in groups}
        expected: dict[str, int] = {}
        for block in (f"/blocks/blocks.{number}" for number in range(4)):
            attention = f"{block}/attention/qkv/MatMul"
            expected |= {attention: 4, f"{attention}#2": 16, f"{attention}#3": 16}
            expected |= {f"{block}/hidden/MatMul": 256}
        assert sizes == expected
        by_name = {group.name: group for group in groups}
        first = "/blocks/blocks.0/attention/qkv/MatMul"
        # queries and keys meet in a product of activations only, values in the layer behind them
        assert not by_name[f"{first}#2"].consumers
        assert by_name[f"{first}#3"].consumers == ("/blocks/blocks.0/attention/out/MatMul",)

    def test_macs_fall_as_promised(self, pruned):
        before, after = counted_macs(onnx.load(TRANSFORMER)), counted_macs(pruned.model)
        assert after <= KEPT * before
        assert after >= (KEPT - 0.05) * before

    def test_attention_and_hidden_units_are_cut(self, pruned):
        cut = [edit.group for edit in pruned.plan.edits]
        assert any("qkv" in name for name in cut)
        assert any("hidden" in name for name in cut)

    def test_accuracy_survives(self, pruned, tmp_path):
        path = tmp_path / "pruned.onnx"
        pruned.save(path)
        assert accuracy(path) >= accuracy(TRANSFORMER) - LOSS


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
