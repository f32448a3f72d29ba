"""Decorrelated training and learnt statistics on the command line, and pruning by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import SCORES, build
from onnx import numpy_helper

torch = pytest.importorskip("torch")

from onnxprune.cli import main  # noqa: E402
from onnxprune.saved_moments import SavedMoments  # noqa: E402
from onnxprune.train.history import read_history  # noqa: E402

STOPPING = """
CALLS = []
def change(feed):
    CALLS.append(1)
    if len(CALLS) == 15:
        raise KeyboardInterrupt
    return feed
"""
NODES = """a = Gemm (x, w1, b1) n = BatchNormalization (a, s, t, m, v) r = Relu (n)
d = Dropout (r, ratio) c = Gemm (d, w2, b2) e = Relu (c) y = Gemm (e, w3, b3)"""
LAYERS = ("Gemm_0", "Gemm_4", "Gemm_6")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with random weights, and correlated samples of classes that can be told apart."""
    monkeypatch.chdir(tmp_path)
    ones, zeros = np.ones(16, np.float32), np.zeros(16, np.float32)
    weights = {
        "w1": (6, 16), "b1": (16,), "s": ones, "t": zeros, "m": zeros, "v": ones,
        "ratio": np.float32(0.2).reshape(()), "w2": (16, 12), "b2": (12,), "w3": (12, 5),
        "b3": (5,),
    }  # fmt: skip
    onnx.save(build(NODES, weights, inputs="float[N,6] x", outputs=SCORES), "in.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)) @ (np.eye(6) + 0.8)
    labels = (x @ rng.standard_normal((6, 5))).argmax(1)
    np.savez("train.npz", x=x.astype(np.float32), labels=labels)
    return tmp_path


def run(*words: object, out: str = "out.onnx") -> int:
    given = ["train", "in.onnx", out, "--data", "train.npz", "--method", "decorrelated"]
    given += ["--batch", "16", "-q", *map(str, words)]
    try:
        return main(given)
    except SystemExit as stopped:
        return int(stopped.code or 0)


def weights(path: str) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_it_trains_logs_and_prunes_without_samples(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--epochs", 12, "--learning-rate", 0.02, "--history", "log.csv")
    rule = ("--decorrelation-rate", 0.02, "--decorrelation-share", 1)
    assert run(*words, *rule, "--statistics", "learnt.npz") == 0
    rows = read_history(Path("log.csv"))
    assert rows[-1]["validation_accuracy"] > 0.6
    for layer in LAYERS:
        losses = [row[f"decorrelation of {layer}"] for row in rows]
        assert losses[0] is None
        assert all(loss > 0 for loss in losses[1:])
    first = [row["decorrelation of Gemm_0"] for row in rows[1:]]
    assert first[-1] < first[0] / 10  # what it reads stays what it was
    before, after = weights("in.onnx"), weights("out.onnx")
    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in before.items()}
    words = ("--statistics", "learnt.npz", "--method", "snp", "--target", "macs=0.6", "--json")
    assert main(["out.onnx", "small.onnx", *words, "--report", "report.json"]) == 0
    record = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert record["settings"]["statistics"] == "learnt"
    assert record["after"]["macs"] < 0.63 * record["before"]["macs"]
    assert main(["in.onnx", "small.onnx", *words]) == 1
    assert "learnt for another model" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--triangular",)], ids=["patches", "triangular"])
def test_an_interrupted_training_goes_on_to_the_same_bytes(more: tuple[str, ...]) -> None:
    Path("own.py").write_text(STOPPING, encoding="utf-8")
    common = ("--epochs", 2, "--keep", "last", *more)
    assert run(*common, "--augment", "own.py:change", "--checkpoint", "run.pt",
               "--checkpoint-every", "0s", "--statistics", "a.npz") == 130  # fmt: skip
    Path("own.py").write_text(STOPPING.replace("== 15", "== 0"), encoding="utf-8")
    resumed = ("--checkpoint", "run.pt", "--resume", "--checkpoint-every", "0s")
    assert run(*common, "--augment", "own.py:change", *resumed, "--statistics", "a.npz") == 0
    whole = ("--augment", "own.py:change", "--statistics", "b.npz")
    assert run(*common, *whole, out="whole.onnx") == 0
    assert Path("out.onnx").read_bytes() == Path("whole.onnx").read_bytes()
    one, other = SavedMoments.load("a.npz"), SavedMoments.load("b.npz")
    assert one.digest == other.digest
    for spec, gram in one.grams.items():
        np.testing.assert_array_equal(gram.sums, other.grams[spec].sums)


def test_weights_of_the_start_have_no_moments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--epochs", 1, "--statistics", "learnt.npz", "--keep", "last") == 0
    still = ("--learning-rate", 1e-30, "--decorrelation-rate", 0, "--freeze-norms")
    assert run("--epochs", 1, *still, "--statistics", "none.npz") == 1
    assert "no statistics were learnt" in capsys.readouterr().err
    assert Path("out.onnx").exists()
    assert not Path("none.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kappa", 2), "kappa is a share, from 0 to 1, not 2"),
        (("--triangular", "--kappa", 0.1), "kappa has to be 0"),
        (("--decorrelation-share", 0), "share of a batch is above 0"),
        (("--decorrelate", "("), "not a regular expression"),
        (("--method", "backprop", "--kappa", 0.1), "--kappa is for --method decorrelated"),
        (("--statistics", "train.npz"), "--statistics would overwrite --data"),
    ],
)
def test_wrong_usage(
    words: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def test_a_name_that_no_layer_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--epochs", 1, "--decorrelate", "Conv") == 1
    assert "no Conv, Gemm or MatMul whose name 'Conv' is found in" in capsys.readouterr().err


def test_statistics_go_with_any_method() -> None:
    words = ("--epochs", 1, "--keep", "last", "--statistics", "learnt.npz")
    assert run(*words, "--method", "backprop") == 0
    assert len(SavedMoments.load("learnt.npz").grams) == 2
