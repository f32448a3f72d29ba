"""The command and its targets: what holds on the file, what is refused, and how it is said."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import files, finite, run, working_folder
from small_networks import MODELS, digits

from onnxprune.cli.arguments import memory
from onnxprune.runtime import Session

QUICK = ("--allocation", "uniform", "--criterion", "l2")

JUDGE = """
import numpy as np

images = np.load("test.npz")["input"]
labels = np.load("test.npz")["labels"]

def accuracy(predict):
    (scores,) = predict({"input": images})
    return (scores.argmax(axis=1) == labels).mean()

def percent(predict):
    return 100 * accuracy(predict)

def failing(predict):
    raise RuntimeError("no licence")

def misfed(predict):
    return predict({"image": images})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    path = working_folder(tmp_path, monkeypatch)
    (path / "test.npz").write_bytes((MODELS / "digits_test.npz").read_bytes())
    (path / "judge.py").write_text(JUDGE, encoding="utf-8")
    np.savez(path / "more.npz", input=digits()[:300])
    np.savez(path / "labelled.npz", input=digits("digits_test.npz")[:300])
    np.save(path / "labels.npy", digits("digits_test.npz", "labels")[:300])
    return path


def record(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("text", "least", "most"), [("size=0.5", 145e3, 152e3), ("size=90kB", 85e3, 90e3)]
)
def test_the_file_is_as_small_as_asked(folder, capsys, text, least, most):
    assert run("--target", text, *QUICK, "--json") == 0
    (target,) = record(capsys)["targets"]  # type: ignore[misc]
    assert least < (folder / "out.onnx").stat().st_size == target["reached"] <= most
    assert target["holds"]


def test_an_error_is_kept_on_held_out_samples(folder, capsys):
    assert run("--target", "error=0.05", "--calib", "more.npz", *QUICK, "--json") == 0
    found = record(capsys)
    (target,) = found["targets"]  # type: ignore[misc]
    (output,) = found["outputs"]  # type: ignore[misc]
    assert 0 < target["reached"] == output["relative_error"] <= 0.05
    assert found["after"]["macs"] < 0.9 * found["before"]["macs"]  # type: ignore[index]


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "drop=1%", "--eval", "judge.py:accuracy"),
        ("--target", "drop=1", "--eval", "judge.py:percent"),
    ],
)
def test_a_metric_of_ones_own_falls_no_further(folder, capsys, words):
    assert run(*words, "--calib", "more.npz", *QUICK, "--json") == 0
    found = record(capsys)
    metric, scale = found["metric"], 100 if "percent" in words[-1] else 1
    assert metric["before"] - metric["after"] <= 0.01 * scale  # type: ignore[index]
    images = digits("digits_test.npz")
    (scores,) = Session("out.onnx").run({"input": images})
    accuracy = (scores.argmax(axis=1) == digits("digits_test.npz", "labels")).mean()
    assert metric["after"] == pytest.approx(scale * accuracy)  # type: ignore[index]
    assert found["after"]["macs"] < 0.8 * found["before"]["macs"]  # type: ignore[index]


def test_labels_judge_the_calibration_samples(folder, capsys):
    words = ("--target", "drop=2%", "--labels", "labels.npy", "--calib", "labelled.npz")
    assert run(*words, *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:1] == ["drop=2%"] for line in lines)
    assert any(line.startswith("top-1 accuracy (30 held-out samples): ") for line in lines)
    assert any(
        line.startswith("note: 30 held-out labels tell an accuracy to 3.3%") for line in lines
    )
    assert finite("out.onnx")


def test_labels_are_only_looked_at(folder):
    """Labels that are all wrong give the same model under the same target on cost."""
    np.save("wrong.npy", (np.load("labels.npy") + 1) % 10)
    for name in ("labels.npy", "wrong.npy"):
        words = ("--target", "macs=0.5", "--labels", name, "--calib", "labelled.npz", "-q")
        assert run(*words, *QUICK, out=f"{name}.onnx") == 0
    assert Path("labels.npy.onnx").read_bytes() == Path("wrong.npy.onnx").read_bytes()


def test_a_time_is_held_in_turns_with_the_original(folder, capsys):
    """The perceptron is timed with a large batch, where its products take the time."""
    words = ("--target", "latency=0.8", "--latency-batch", 256, *QUICK, "--json")
    assert run(*words) == 0
    found = record(capsys)
    before, after = (found[key]["latency_ms"]["median"] for key in ("before", "after"))  # type: ignore[index]
    (target,) = found["targets"]  # type: ignore[misc]
    assert (target["reached"], target["original"]) == (after, before)
    assert after <= 0.8 * 1.03 * before
    assert found["settings"]["latency_batch"] == 256  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("macs=0.2", "error=0.001"), "while macs=0.2 held"),
        (("size=1kB",), "file size = 0.003299 of the original (1kB) cannot be reached"),
        (("latency=1us",), "(0.001 ms) cannot be reached: the smallest reachable value is"),
        (("error=1e-12",), "error=1e-12"),
        (("drop=0", "--labels", "some.npy"), "some.npy: not a readable .npy file of labels"),
        (("drop=1%", "--labels", "labels.npy"), "300 labels for 60 calibration samples"),
        (("drop=1%", "--eval", "none.py:f"), "none.py: no such file"),
        (("drop=1%", "--eval", "judge.py:none"), "has no function named 'none'"),
        (("drop=1%", "--eval", "judge.py:failing"), "RuntimeError in line 15: no licence"),
        (("drop=1%", "--eval", "judge.py:misfed"), "in line 18: the feed does not fit the model"),
        (("drop=1", "--eval", "judge.py:accuracy"), "written drop=1%"),
    ],
)
def test_what_cannot_be_is_refused_without_a_file(folder, capsys, words, part):
    Path("some.npy").write_text("1, 2", encoding="utf-8")
    before = files(folder)
    flags = [w for word in words for w in (("--target", word) if "=" in word else (word,))]
    assert run(*flags, *QUICK) == 1
    said = capsys.readouterr()
    assert part in said.err.splitlines()[-1]
    assert said.out == ""
    assert files(folder) == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--target", "drop=1%"), "--target drop needs --eval or --labels"),
        (("--eval", "a.py:f", "--labels", "b.npy"), "not allowed with argument --eval"),
        (("--target", "latency=5"), "a time has a unit: latency=5ms"),
        (("--target", "size=5ms"), "'size=5ms' is not a target"),
        (("--target", "error=0"), "target error must be a number above 0"),
        (("--threads", "0"), "threads must be at least 1"),
        (("--latency-batch", "0"), "latency_batch must be at least 1"),
        (("--report", "labels.npy", "--labels", "labels.npy"), "would overwrite --labels"),
    ],
)
def test_wrong_usage_says_what_is_wrong(folder, capsys, words, part):
    before = files(folder)
    assert run(*words) == 2
    assert part in capsys.readouterr().err.splitlines()[-1]
    assert files(folder) == before


def test_a_model_that_got_slower_says_so(folder, capsys, monkeypatch):
    from onnxprune.latency import Latency

    times = [Latency(1.0, 1.1, 1.1, 5), Latency(1.5, 1.6, 1.6, 5)]
    monkeypatch.setattr("onnxprune.measurement.interleaved_latency", lambda *_, **__: times)
    assert run("--target", "macs=0.5", *QUICK) == 0
    said = capsys.readouterr().out
    assert "note: the pruned model is slower: 1.000 ms became 1.500 ms" in said
    times[1] = Latency(1.01, 1.2, 1.2, 5)
    assert run("--target", "macs=0.5", *QUICK) == 0
    said = capsys.readouterr().out
    assert "note: the pruned model is no faster: 1.000 ms became 1.010 ms" in said
    assert run("--target", "macs=1.0", *QUICK) == 0  # the same model twice
    assert "faster" not in capsys.readouterr().out
    times.reverse()
    assert run("--target", "macs=0.5", *QUICK) == 0
    said = capsys.readouterr().out
    assert "slower" not in said
    assert "faster" not in said
    assert onnx.load("out.onnx").graph.node


def test_memory_that_no_machine_has_is_wrong_usage():
    with pytest.raises(argparse.ArgumentTypeError, match="no machine has as much"):
        memory("9" * 400)
