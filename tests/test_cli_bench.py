"""``onnxprune bench``: what it times, prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import files, working_folder
from micro_models import build
from small_networks import MODELS, convolutions

from onnxprune import benchmark as module
from onnxprune.cli import main
from onnxprune.errors import OnnxPruneError
from onnxprune.runtime import Session

FAST = ("--runs", "12", "--warmup", "1")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    path = working_folder(tmp_path, monkeypatch)
    shutil.copy(MODELS / "resnet_digits.onnx", "large.onnx")
    return path


def usage(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *words])
    return int(stopped.value.code or 0)


def record(capsys, *words: str) -> dict:
    assert main(["bench", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_model_is_timed_at_every_batch_size(folder, capsys):
    before = files(folder)
    found = record(capsys, "in.onnx", "large.onnx", "--batch", "1", "8", *FAST)
    rows = found["rows"]
    assert [(row["model"], row["batch"]) for row in rows] == [
        ("in.onnx", 1),
        ("large.onnx", 1),
        ("in.onnx", 8),
        ("large.onnx", 8),
    ]
    for row in rows:
        own = row["latency_ms"]
        assert 0 < own["min"] <= own["median"] <= own["p90"] <= own["p99"]
        assert own["min"] <= own["mean"]
        assert row["throughput"] == pytest.approx(1000 * row["batch"] / own["mean"])
        assert row["runs"] == 12
    assert [row["ratio"] is None for row in rows] == [True, False, True, False]
    large = rows[3]["ratio"]
    assert large["low"] <= large["value"] <= large["high"]
    assert large["value"] == pytest.approx(
        rows[3]["latency_ms"]["median"] / rows[2]["latency_ms"]["median"]
    )
    assert large["value"] > 2  # it takes ten times as long
    assert files(folder) == before


def test_the_table_has_the_rows_and_says_where_nodes_ran(folder, capsys):
    assert main(["bench", "in.onnx", "large.onnx", *FAST]) == 0
    said = capsys.readouterr()
    head, first, second, blank, *rest = said.out.splitlines()
    assert head.split()[:4] == ["batch", "min", "ms", "median"]
    assert first.split()[0] == "1"
    assert first.split()[-2:] == ["in.onnx", "cpu"]
    assert " to " in second
    assert blank == ""
    nodes = len(onnx.load("in.onnx").graph.node)
    ran = f"in.onnx on cpu ran on CPUExecutionProvider: {nodes} nodes, 100.0% of the time"
    assert rest[0] == ran
    assert any("fewer than 100 runs" in line for line in rest)
    assert main(["bench", "in.onnx", *FAST, "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_models_with_the_same_inputs_get_the_same_values_and_other_seeds_others(
    folder, capsys, monkeypatch
):
    feeds = []

    class Spy(Session):
        def run(self, feed, outputs=None):
            feeds.append(feed["input"].tobytes())
            return super().run(feed, outputs)

    monkeypatch.setattr(module, "Session", Spy)
    record(capsys, "in.onnx", "large.onnx", *FAST)
    assert len(set(feeds)) == 1
    record(capsys, "in.onnx", "large.onnx", *FAST, "--seed", "1")
    assert len(set(feeds)) == 2


def test_samples_are_what_it_runs_on(folder, capsys, monkeypatch):
    feeds = []

    class Spy(Session):
        def run(self, feed, outputs=None):
            feeds.append(feed["input"])
            return super().run(feed, outputs)

    monkeypatch.setattr(module, "Session", Spy)
    (row,) = record(capsys, "in.onnx", "--data", "calib.npz", "--batch", "5", *FAST)["rows"]
    assert row["batch"] == 5
    expected = np.load("calib.npz")["input"][:5]
    assert all(np.array_equal(feed, expected) for feed in feeds)
    assert main(["bench", "in.onnx", "--data", "calib.npz", "--batch", "61", *FAST]) == 1
    assert "a batch of 61 needs as many samples" in capsys.readouterr().err


def fixed(batch: int, path: str) -> None:
    model = onnx.load("in.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, path)


def test_a_batch_that_a_model_is_fixed_to(folder, capsys):
    fixed(4, "four.onnx")
    assert record(capsys, "four.onnx", *FAST)["rows"][0]["batch"] == 4
    assert record(capsys, "four.onnx", "--batch", "4", *FAST)["rows"][0]["batch"] == 4
    assert main(["bench", "four.onnx", "--batch", "8", *FAST]) == 1
    assert "four.onnx takes batches of exactly 4, not 8" in capsys.readouterr().err
    found = record(capsys, "in.onnx", "four.onnx", *FAST)
    assert found["rows"][1]["ratio"] is None
    assert "models that are fixed to different batches have no ratio" in found["notes"]


def test_open_extents_are_given(folder, capsys):
    model = convolutions()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    onnx.save(model, "open.onnx")
    assert main(["bench", "open.onnx", *FAST]) == 1
    assert "--shape x:1x3x224x224" in capsys.readouterr().err
    for shape in ("x:2x3x9x7", "x:2,3,9,7"):
        (row,) = record(capsys, "open.onnx", "--shape", shape, *FAST)["rows"]
        assert row["batch"] == 2
    rows = record(capsys, "open.onnx", "--shape", "x:2x3x9x7", "--batch", "1", "3", *FAST)["rows"]
    assert [row["batch"] for row in rows] == [1, 3]
    found = record(capsys, "open.onnx", "in.onnx", "--shape", "x:1x3x9x7", *FAST)
    assert len(found["rows"]) == 2
    assert main(["bench", "open.onnx", "in.onnx", "--shape", "z:1x3x9x7", *FAST]) == 1
    assert "but the inputs of open.onnx, in.onnx are 'input', 'x'" in capsys.readouterr().err


def test_inputs_that_a_model_does_not_run_on_say_what_to_do(folder, capsys):
    model = build(
        "n = Cast <to=7> (x) y = Reshape (w, n)",
        {"w": (6, 5)},
        inputs="float[3] x",
        outputs="float[A,B,C] y",
    )
    onnx.save(model, "picky.onnx")
    assert main(["bench", "picky.onnx", *FAST]) == 1
    assert "give samples that suit the model with --data" in capsys.readouterr().err


def test_a_provider_that_is_not_there_is_an_error_and_no_silent_cpu(folder, capsys, monkeypatch):
    try:
        Session("in.onnx", provider="cuda")
    except OnnxPruneError:
        pass
    else:
        pytest.skip("there is a GPU")
    assert main(["bench", "in.onnx", "--provider", "cpu", "cuda", *FAST]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "provider cuda was asked for but CUDAExecutionProvider is not active" in said.err
    assert "or use provider cpu" in said.err


@pytest.mark.slow
def test_peak_memory_grows_with_the_batch(folder, capsys):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells")
    words = ("--memory", "--batch", "1", "2048", *FAST)
    small, large = (
        row["peak_memory_bytes"] for row in record(capsys, "large.onnx", *words)["rows"]
    )
    # 16 channels of 8 x 8 floats at least, for each of 2047 more samples
    assert large - small > 2047 * 16 * 64 * 4
    assert main(["bench", "in.onnx", "--memory", *FAST]) == 0
    assert "peak memory" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.slow
def test_the_figure_has_a_panel_for_each_batch(folder, capsys):
    pytest.importorskip("matplotlib")
    assert main(["bench", "in.onnx", "--batch", "1", "4", *FAST, "-q", "--plot", "h.svg"]) == 0
    drawn = Path("h.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    assert "batch 1" in drawn
    assert "batch 4" in drawn


def test_wrong_usage(folder, capsys):
    for words in (
        (),
        ("in.onnx", "--batch", "0"),
        ("in.onnx", "--runs", "few"),
        ("in.onnx", "--threads", "-1"),
        ("in.onnx", "--provider", "tpu"),
        ("in.onnx", "--shape", "input:1x1x8x8", "--data", "calib.npz"),
        ("in.onnx", "--preset", "imagenet"),
        ("in.onnx", "--plot", "times.txt"),
        ("in.onnx", "--plot", "in.svg", "--seconds", "soon"),
    ):
        assert usage(*words) == 2, words
    assert "write a time as 90s, 10m or 2h" in capsys.readouterr().err
    assert main(["bench", "none.onnx", *FAST]) == 1
    assert capsys.readouterr().err == "onnxprune: none.onnx: no such file\n"
