"""``onnxprune compare``: what it measures, bounds that are broken, models that differ in kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import files, working_folder
from micro_models import build
from onnx import TensorProto, numpy_helper
from small_networks import digits

from onnxprune.cli import main
from onnxprune.paired import paired
from onnxprune.runtime import Session

DATA = ("--data", "calib.npz")


def noisy(path: str, scale: float = 0.07) -> None:
    """The model with noise on its weights."""
    model, rng = onnx.load("in.onnx"), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            values = values + scale * rng.normal(size=values.shape)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, path)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    path = working_folder(tmp_path, monkeypatch)
    noisy("noisy.onnx")
    return path


@pytest.fixture
def outputs(folder) -> tuple[np.ndarray, np.ndarray]:
    """What the two models make of the samples."""
    feed = {"input": np.load("calib.npz")["input"]}
    first, second = (Session(p).run(feed)[0].astype(float) for p in ("in.onnx", "noisy.onnx"))
    return first, second


def record(capsys, *words: str, code: int = 0) -> dict:
    assert main(["compare", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def usage(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *words])
    return int(stopped.value.code or 0)


def test_measures_are_those_of_numpy(folder, capsys, outputs):
    a, b = outputs
    before = files(folder)
    found = record(capsys, "in.onnx", "noisy.onnx", *DATA, "--batch", "7")
    (output,) = found["outputs"]
    assert output["name"] == "logits"
    assert output["samples"] == 60
    assert output["relative_error"] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    assert output["cosine"] == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    assert output["max_abs_error"] == pytest.approx(np.abs(a - b).max())
    assert output["top1_agreement"] == (a.argmax(1) == b.argmax(1)).mean() < 1
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b))
    assert output["divergence"] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    first, second = found["models"]
    assert first["params"] == second["params"]
    assert first["macs"] == 75_008
    assert first["bytes"] == Path("in.onnx").stat().st_size
    assert files(folder) == before


def test_a_model_is_no_different_from_itself(folder, capsys):
    words = ("--max-error", "0", "--min-agreement", "100%", "--max-abs-error", "0")
    found = record(capsys, "in.onnx", "in.onnx", *DATA, *words, "--min-cosine", "1")
    assert [bound["holds"] for bound in found["bounds"]] == [True] * 4


def test_the_table_says_it_all(folder, capsys):
    assert main(["compare", "in.onnx", "noisy.onnx", *DATA]) == 0
    said = capsys.readouterr()
    costs, measures = said.out.rstrip().split("\n\n")
    assert costs.splitlines()[1].split()[1] == "75,008"
    assert costs.splitlines()[3].split()[:3] == ["100.0%", "100.0%", "100.0%"]
    assert measures.splitlines()[1].split()[-1] == "logits"
    assert said.err.startswith("60 samples: arrays of calib.npz")
    assert main(["compare", "in.onnx", "noisy.onnx", *DATA, "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_broken_bound_is_exit_code_1_and_the_record_is_printed(folder, capsys, outputs):
    a, b = outputs
    error = np.linalg.norm(a - b) / np.linalg.norm(a)
    words = ["compare", "in.onnx", "noisy.onnx", *DATA, "--json"]
    limits = ("--max-error", f"{error / 2}", "--max-divergence", "100")
    assert main([*words, *limits]) == 1
    said = capsys.readouterr()
    found = {bound["bound"]: bound for bound in json.loads(said.out)["bounds"]}
    assert not found["max-error"]["holds"]
    assert found["max-divergence"]["holds"]
    assert "noisy.onnx is further from in.onnx than allowed" in said.err
    assert f"relative error is {error:.6g}, --max-error allows at most {error / 2:g}" in said.err
    assert "divergence" not in said.err
    assert main([*words, "--max-error", f"{2 * error * 100}%"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "kept", "broken"),
    [
        ("--max-abs-error", "1000", "0.0001"),
        ("--max-divergence", "10", "1e-9"),
        ("--min-cosine", "0.5", "0.99999999"),
        ("--min-agreement", "50%", "100%"),
    ],
)
def test_every_bound_has_two_sides(folder, capsys, flag, kept, broken):
    words = ["compare", "in.onnx", "noisy.onnx", *DATA, "-q"]
    assert main([*words, flag, kept]) == 0
    assert main([*words, flag, broken]) == 1
    assert flag in capsys.readouterr().err


def test_what_is_not_a_number_keeps_no_bound(folder, capsys):
    model = onnx.load("in.onnx")
    last = next(t for t in reversed(model.graph.initializer) if t.data_type == TensorProto.FLOAT)
    values = np.full_like(numpy_helper.to_array(last), np.nan)
    last.CopyFrom(numpy_helper.from_array(values, last.name))
    onnx.save(model, "nan.onnx")
    found = record(capsys, "in.onnx", "nan.onnx", *DATA, "--max-error", "1e9", code=1)
    assert found["outputs"][0]["relative_error"] is None
    assert found["bounds"][0]["found"] is None


# --- metrics ------------------------------------------------------------------------------------


def test_accuracies_with_the_standard_error_of_their_difference(folder, capsys, outputs):
    a, b = outputs
    labels = a.argmax(1)
    labels[::7] = (labels[::7] + 1) % 10
    np.save("labels.npy", labels)
    words = ("in.onnx", "noisy.onnx", *DATA, "--labels", "labels.npy")
    found = record(capsys, *words)["metric"]
    right = [(x.argmax(1) == labels).astype(float) for x in (a, b)]
    difference = right[1] - right[0]
    assert (found["first"], found["second"]) == (right[0].mean(), right[1].mean())
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["standard_error"] == pytest.approx(difference.std(ddof=1) / np.sqrt(60))
    drop = -difference.mean()
    assert drop > 0
    assert main(["compare", *words, "-q", "--max-drop", f"{drop + 1e-6}"]) == 0
    assert main(["compare", *words, "-q", "--max-drop", f"{drop - 1e-6}"]) == 1
    assert "top-1 accuracy: the drop is" in capsys.readouterr().err


def test_labels_are_those_of_the_samples_that_are_used(folder, capsys, outputs):
    np.save("labels.npy", outputs[0].argmax(1))
    words = ("--labels", "labels.npy", "--num-samples", "20", "--seed", "3")
    found = record(capsys, "in.onnx", "noisy.onnx", *DATA, *words)["metric"]
    assert (found["first"], found["samples"]) == (1.0, 20)


JUDGE = """
import numpy as np
images = np.load("calib.npz")["input"]
def total(predict):
    return predict({"input": images})[0].sum()
def largest(predict):
    return predict({"input": images})[0].max(axis=1)
def table(predict):
    return predict({"input": images})[0]
def uneven(predict):
    uneven.calls = getattr(uneven, "calls", 0) + 1
    return np.ones(uneven.calls)
"""


def test_a_function_of_the_user_s(folder, capsys, outputs):
    a, b = outputs
    Path("judge.py").write_text(JUDGE, encoding="utf-8")
    words = ("in.onnx", "noisy.onnx", *DATA)
    found = record(capsys, *words, "--eval", "judge.py:largest")["metric"]
    difference = b.max(axis=1) - a.max(axis=1)
    assert found["first"] == pytest.approx(a.max(axis=1).mean(), rel=1e-5)
    assert found["standard_error"] == pytest.approx(difference.std(ddof=1) / np.sqrt(60), rel=1e-3)
    found = record(capsys, *words, "--eval", "judge.py:total")["metric"]
    assert found["second"] == pytest.approx(b.sum(), rel=1e-4)
    assert found["standard_error"] is None
    for function, part in (("table", "one for each sample"), ("uneven", "1 numbers for one model")):
        assert main(["compare", *words, "--eval", f"judge.py:{function}"]) == 1
        assert part in capsys.readouterr().err


def test_pairing_takes_out_what_the_models_share():
    rng = np.random.default_rng(0)
    hard = rng.random(1000)
    first, second = ((hard > 0.4).astype(float), (hard > 0.42).astype(float))
    found = paired("accuracy", first, second)
    separate = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 1000)
    assert found.standard_error < separate / 3


# --- models that differ -------------------------------------------------------------------------


def gemm(path: str, *, inputs: str = "float[N,6] x", outputs: str = "float[N,5] y", **more) -> None:
    nodes = more.pop("nodes", "y = Gemm (x, w)")
    onnx.save(build(nodes, {"w": (6, 5)} | more, inputs=inputs, outputs=outputs), path)


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (
            {"nodes": "y = Gemm (z, w)", "inputs": "float[N,6] z"},
            "only a.onnx has the input 'x'; only b.onnx has the input 'z'",
        ),
        (
            {"nodes": "v = Gemm (x, w)", "outputs": "float[N,5] v"},
            "only a.onnx has the output 'y'; only b.onnx has the output 'v'",
        ),
        (
            {"inputs": "float[N,7] x", "w": (7, 5)},
            "input 'x' is float32 [N, 6] in a.onnx and float32 [N, 7] in b.onnx",
        ),
        (
            {"outputs": "float[N,4] y", "w": (6, 4)},
            "output 'y' is float32 [N, 5] in a.onnx and float32 [N, 4] in b.onnx",
        ),
        (
            {"nodes": "g = Gemm (x, w) y = Cast <to=7> (g)", "outputs": "int64[N,5] y"},
            "output 'y' is float32 [N, 5] in a.onnx and int64 [N, 5] in b.onnx",
        ),
    ],
)
def test_models_that_differ_in_kind_are_named(tmp_path, monkeypatch, capsys, other, part):
    monkeypatch.chdir(tmp_path)
    gemm("a.onnx")
    gemm("b.onnx", **other)
    np.save("x.npy", np.ones((4, 6), np.float32))
    assert main(["compare", "a.onnx", "b.onnx", "--data", "x.npy"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "a.onnx and b.onnx cannot be compared: " in said.err
    assert part in said.err


def test_order_precision_and_an_open_batch_may_differ(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = np.random.default_rng(0).normal(size=(6, 5))
    nodes = "y = Gemm (x, w) s = ReduceSum <keepdims=0> (x)"
    gemm("a.onnx", nodes=nodes, outputs="float[N,5] y, float s", w=weights.astype(np.float32))
    gemm(
        "b.onnx",
        nodes=nodes,
        inputs="float16[2,6] x",
        outputs="float16 s, float16[2,5] y",
        w=weights.astype(np.float16),
    )
    np.save("x.npy", np.random.default_rng(1).random((5, 6)).astype(np.float32))
    found = record(capsys, "a.onnx", "b.onnx", "--data", "x.npy")
    errors = {output["name"]: output for output in found["outputs"]}
    assert set(errors) == {"y", "s"}
    assert errors["y"]["samples"] == 4  # two batches of two, as the second model takes them
    assert 0 < errors["y"]["relative_error"] < 2e-3
    assert errors["s"]["relative_error"] < 2e-3
    assert errors["s"]["top1_agreement"] is None


def test_a_quantised_model_is_compared_without_macs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gemm("a.onnx")
    gemm(
        "b.onnx",
        nodes="q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Gemm (d, w)",
        s=np.array(0.1, np.float32),
        z=np.array(0, np.int8),
    )
    np.save("x.npy", np.random.default_rng(1).random((5, 6)).astype(np.float32))
    found = record(capsys, "a.onnx", "b.onnx", "--data", "x.npy")
    assert [model["macs"] for model in found["models"]] == [30, None]
    assert 0 < found["outputs"][0]["relative_error"] < 0.2


def test_agreement_needs_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gemm("a.onnx", outputs="float[N,6] y", w=(6, 6))
    np.save("x.npy", np.ones((4, 6), np.float32))
    words = ["compare", "a.onnx", "a.onnx", "--data", "x.npy"]
    assert main([*words, "--min-agreement", "99%"]) == 1
    assert "--min-agreement is on outputs that are rows of class scores" in capsys.readouterr().err


def test_wrong_usage(folder, capsys):
    for words in (
        ("in.onnx", "noisy.onnx"),
        ("in.onnx", *DATA),
        ("in.onnx", "noisy.onnx", *DATA, "--min-agreement", "99"),
        ("in.onnx", "noisy.onnx", *DATA, "--max-error", "-1"),
        ("in.onnx", "noisy.onnx", *DATA, "--max-error", "nan"),
        ("in.onnx", "noisy.onnx", *DATA, "--max-drop", "1%"),
        ("in.onnx", "noisy.onnx", *DATA, "--labels", "l.npy", "--eval", "j.py:f"),
    ):
        assert usage(*words) == 2, words
    np.savez("other.npz", wrong=digits()[:3])
    assert main(["compare", "in.onnx", "noisy.onnx", "--data", "other.npz"]) == 1
    assert "the model's inputs are 'input'" in capsys.readouterr().err
