"""``onnxprune sweep``: a model for each budget, and what they cost and do side by side."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import files, run, working_folder
from small_networks import MODELS

from onnxprune import finishing, sweep
from onnxprune.cli import main
from onnxprune.frontier import Frontier, Point
from onnxprune.latency import Latency
from onnxprune.sweep import budgets_of

PLAIN = ("--allocation", "uniform", "--criterion", "l2", "-q")
QUICK = (*PLAIN, "--figure", "none")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder to work in, where no time is spent on measuring it."""

    def latencies(models: Any, *_: Any, **__: Any) -> list[Latency]:
        return [Latency(1.0 / (1 + i), 1.1 / (1 + i), 1.2 / (1 + i), 5) for i in range(len(models))]

    monkeypatch.setattr("onnxprune.sweep.interleaved_latency", latencies)
    return working_folder(tmp_path, monkeypatch)


def swept(*words: object, model: str = "in.onnx", into: str = "out") -> int:
    given = list(map(str, words))
    given += ["--calib", "calib.npz"] * ("--calib" not in given)
    try:
        return main(["sweep", model, into, *given])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def rows() -> list[dict[str, str]]:
    with Path("out/frontier.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The MACs of every model that is made."""
    found: list[Any] = []
    finish = finishing.Finisher.finish

    def noted(self: finishing.Finisher, *given: Any) -> Any:
        outcome = finish(self, *given)
        found.append(round(outcome.macs / outcome.measured.before.macs, 1))
        return outcome

    monkeypatch.setattr(finishing.Finisher, "finish", noted)
    return found


def test_every_budget_has_the_model_of_its_own_run(folder):
    budgets = ("macs=0.8", "macs=0.5")
    assert swept("--target", "macs=0.8,0.5", *QUICK) == 0
    for budget in budgets:
        stem = budget.replace("=", "-")
        words = (*PLAIN, "--target", budget, "--report", "own.json")
        assert run(*words, out="own.onnx") == 0
        assert Path(f"out/{stem}.onnx").read_bytes() == Path("own.onnx").read_bytes()
        report, own = (json.loads(Path(p).read_text()) for p in (f"out/{stem}.json", "own.json"))
        for record in (report, own):
            record["before"].pop("latency_ms"), record["after"].pop("latency_ms")
            record.pop("notes")  # one is on the latency
            record.pop("run")  # when and how it was called
        assert report == own
    names = {"frontier.csv", "sweep.json"}
    names |= {f"{b.replace('=', '-')}.{end}" for b in budgets for end in ("onnx", "json")}
    assert {path.name for path in Path("out").iterdir()} == names


@pytest.mark.slow
def test_table_csv_and_record_say_the_same(folder, capsys):
    words = ("--target", "macs=0.8,0.5", *QUICK[:-3])
    assert swept(*words, "--figure", "none") == 0
    table = capsys.readouterr().out.splitlines()
    above = "MACs params size latency error same class budget"
    assert table[0].split() == above.split()
    assert table[1].split()[-1] == "original"
    assert [line.split()[-1] for line in table[2:4]] == ["macs=0.8", "macs=0.5"]
    original, *points = rows()
    assert [p["budget"] for p in points] == ["macs=0.8", "macs=0.5"]
    assert [p["state"] for p in points] == ["made"] * 2
    for point, line in zip(points, table[2:], strict=False):
        report = json.loads(Path("out", point["file"]).with_suffix(".json").read_text())
        after, (output,) = report["after"], report["outputs"]
        assert (int(point["macs"]), int(point["params"])) == (after["macs"], after["params"])
        assert int(point["bytes"]) == Path("out", point["file"]).stat().st_size
        assert float(point["macs_kept"]) == after["macs"] / report["before"]["macs"]
        assert float(point["relative_error"]) == output["relative_error"]
        assert float(point["top1_agreement"]) == output["top1_agreement"]
        assert line.split()[0] == f"{after['macs'] / report['before']['macs']:.1%}"
        assert f"{output['relative_error']:.4f}" in line.split()
    assert [float(p["latency_ms_median"]) for p in (original, *points)] == [1.0, 0.5, 1 / 3]
    assert float(points[0]["latency_kept"]) == 0.5
    assert swept(*words, "--figure", "none", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [p["macs"] for p in record["points"]] == [int(p["macs"]) for p in points]
    assert [p["state"] for p in record["points"]] == ["found"] * 2
    assert record["original"]["macs"] == int(original["macs"])


def test_a_budget_out_of_reach_is_a_row_and_not_the_end(folder, capsys):
    assert swept("--target", "macs=0.5,0.001,0.8", *QUICK) == 1
    _, half, failed, most = rows()
    assert [r["state"] for r in (half, failed, most)] == ["made", "failed", "made"]
    assert failed["reason"].startswith("the target macs = 0.001 of the original (75) cannot be")
    assert (failed["file"], failed["macs"], failed["latency_ms_median"]) == ("", "", "")
    assert not Path("out/macs-0.001.onnx").exists()
    assert float(most["latency_ms_median"]) == pytest.approx(1 / 3)  # the third that was timed
    assert swept("--target", "macs=0.5,0.001", *QUICK[:-3], "--figure", "none") == 1
    said = capsys.readouterr().out
    assert "macs=0.001 (failed)" in said
    assert "macs=0.001: the target macs = 0.001" in said


def test_other_targets_hold_throughout(folder):
    words = ("--target", "macs=0.8,0.3", "--target", "error=0.02", *QUICK)
    assert swept(*words) == 1  # at 0.3 the damage is more
    _, most, least = rows()
    assert (most["budget"], most["file"]) == ("macs=0.8 error=0.02", "macs-0.8_error-0.02.onnx")
    assert "error=0.02 asks for at most 0.02" in least["reason"]


def test_what_is_there_is_not_made_again(folder, made):
    assert swept("--target", "macs=0.8,0.5", *QUICK) == 0
    assert made == [0.8, 0.5]
    before = files(folder / "out")
    assert swept("--target", "macs=0.8,0.6,0.5", *QUICK) == 0
    assert made == [0.8, 0.5, 0.6]
    assert [r["state"] for r in rows()] == ["original", "found", "made", "found"]
    after = files(folder / "out")
    assert {n: after[n] for n in before if n.startswith("macs")} == {
        n: before[n] for n in before if n.startswith("macs")
    }
    assert swept("--target", "macs=0.8", *QUICK) == 0
    assert len(json.loads(Path("out/sweep.json").read_text())["models"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    ["model", "samples", "setting", "file", "report", "nothing"],
)
def test_what_is_not_the_same_is_made_again(folder, made, change):
    words = ["--target", "macs=0.5", *QUICK]
    assert swept(*words) == 0
    if change == "samples":
        np.savez("calib.npz", input=np.load("calib.npz")["input"][::-1])
    if change == "file":
        Path("out/macs-0.5.onnx").write_bytes(b"damaged")
    if change == "report":
        Path("out/macs-0.5.json").unlink()
    words += ["--seed", "1"] * (change == "setting")
    words += ["--threads", "1", "--max-memory", "1GB"] * (change == "nothing")
    made.clear()
    assert swept(*words, model=other_model() if change == "model" else "in.onnx") == 0
    assert made == ([] if change == "nothing" else [0.5])
    assert Path("out/macs-0.5.json").exists()
    assert rows()[1]["state"] == ("found" if change == "nothing" else "made")


def other_model() -> str:
    """The network with one weight changed."""
    model = onnx.load(MODELS / "mlp_digits.onnx")
    tensor = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1.0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, "other.onnx")
    return "other.onnx"


def test_a_model_of_other_settings_does_not_stay_where_there_is_none(folder):
    assert swept("--target", "macs=0.3", *QUICK) == 0
    assert swept("--target", "macs=0.3", "--align", "128", *QUICK) == 1
    assert not Path("out/macs-0.3.onnx").exists()
    assert not Path("out/macs-0.3.json").exists()
    assert rows()[1]["state"] == "failed"


def test_an_interrupted_sweep_goes_on(folder, made, monkeypatch, capsys):
    write = sweep.Sweep._write

    def stopped(self: sweep.Sweep, entries: Any) -> None:
        write(self, entries)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep.Sweep, "_write", stopped)
        assert swept("--target", "macs=0.8,0.5", *QUICK) == 130
    assert "the same command goes on from what is in out" in capsys.readouterr().err
    assert swept("--target", "macs=0.8,0.5", *QUICK) == 0
    assert made == [0.8, 0.5]
    assert [r["state"] for r in rows()] == ["original", "found", "made"]


@pytest.mark.slow
def test_the_metric_is_that_of_the_held_out_samples(folder, capsys):
    np.save("labels.npy", np.load(MODELS / "digits_test.npz")["labels"][:60])
    np.savez("calib.npz", input=np.load(MODELS / "digits_test.npz")["input"][:60])
    words = ("--target", "macs=0.8,0.5", "--labels", "labels.npy", *QUICK[:-3], "--figure", "none")
    assert swept(*words) == 0
    table = capsys.readouterr().out
    assert "metric: top-1 accuracy (6 held-out samples)" in table
    original, *points = rows()
    for point in points:
        report = json.loads(Path("out", point["file"]).with_suffix(".json").read_text())
        assert float(point["metric"]) == report["metric"]["after"]
        assert float(original["metric"]) == report["metric"]["before"]


def frontier(metric: str) -> Frontier:
    """Two models and a budget without one."""
    full = Point("original", "original", "", 100, 40, 9, Latency(2.0, 2.1, 2.2, 5), metric=0.9)
    made = [
        Point(f"macs={m}", "made", "a", int(100 * m), 30, 8, Latency(1.0, 1, 1, 5), e, 1, 0.75, 0.5)
        for m, e in ((0.8, 0.1), (0.5, 0.3))
    ]
    points = [made[1], Point("macs=0.1", "failed", reason="no"), made[0]]
    return Frontier(full, points, metric, 6, {}, [])


def test_the_figure_has_a_panel_for_every_cost_and_measure():
    pytest.importorskip("matplotlib")
    from onnxprune.frontier_figure import draw_frontier

    axes = draw_frontier(frontier("")).axes
    labels = ["MACs", "parameters", "measured latency"]
    assert [a.get_xlabel() for a in axes[:3]] == [f"{name}, of the original" for name in labels]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["relative error", "same top class"]
    curve, original = axes[0].get_lines()
    assert curve.get_xydata().tolist() == [[0.5, 0.3], [0.8, 0.1]]
    assert original.get_xydata().tolist() == [[1.0, 0.0]]
    assert axes[5].get_lines()[0].get_xydata().tolist() == [[0.5, 0.75]] * 2
    judged = draw_frontier(frontier("accuracy")).axes
    assert [a.get_ylabel() for a in judged] == ["accuracy", "", ""]
    curve, original = judged[0].get_lines()
    assert [curve.get_ydata().tolist(), original.get_ydata().tolist()] == [[0.5, 0.5], [0.9]]


@pytest.mark.slow
def test_a_figure_is_drawn_of_what_was_made(folder):
    pytest.importorskip("matplotlib")
    assert swept("--target", "macs=0.8,0.5,0.001", *PLAIN) == 1
    assert Path("out/frontier.svg").read_bytes().startswith(b"<?xml")
    assert swept("--target", "macs=0.8", *PLAIN, "--figure", "png") == 0
    assert Path("out/frontier.png").read_bytes().startswith(b"\x89PNG")
    assert swept("--target", "macs=0.001", *PLAIN, into="none") == 1
    assert not Path("none/frontier.svg").exists()


@pytest.mark.slow
def test_without_matplotlib_only_the_figure_is_missing(folder, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("figures", "panels", "frontier_figure"):
        monkeypatch.delitem(sys.modules, f"onnxprune.{name}", raising=False)
        monkeypatch.delattr(f"onnxprune.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert swept("--target", "macs=0.8", *PLAIN[:-1]) == 0
    assert "note: no figure was drawn, which needs matplotlib" in capsys.readouterr().out
    assert swept("--target", "macs=0.8", *PLAIN, "--figure", "svg") == 1
    assert "the models were made, but not the figure" in capsys.readouterr().err
    assert Path("out/macs-0.8.onnx").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "there is no budget; write for example --target macs=0.8,0.65,0.5"),
        (("--target", "macs=0.8,0.5", "--target", "params=0.5,0.4"), "sweep over one, and give"),
        (("--target", "macs=0.8,half"), "'macs=half' is not a target"),
        (("--target", "macs=0.8,"), "'macs=' is not a target"),
        (("--target", "macs=0.8,0.8"), "the budget macs=0.8 is there twice"),
        (("--target", "drop=1%,2%"), "--target drop needs --eval or --labels"),
    ],
)
def test_wrong_usage_says_what_is_wrong(folder, capsys, words, part):
    before = files(folder)
    assert swept(*words, *QUICK) == 2
    assert part in capsys.readouterr().err.splitlines()[-1]
    assert files(folder) == before


def test_nothing_that_is_read_or_of_others_is_written_over(folder, capsys):
    Path("out").mkdir()
    Path("out/macs-0.5.onnx").write_bytes(Path("in.onnx").read_bytes())
    words = ("--target", "macs=0.5", *QUICK)
    assert swept(*words, model="out/macs-0.5.onnx") == 2
    assert "macs-0.5.onnx would overwrite IN" in capsys.readouterr().err
    Path("out/sweep.json").write_text('{"mine": 1}')
    assert swept(*words) == 1
    assert "not what a sweep of this version has left" in capsys.readouterr().err
    assert swept(*words, into="in.onnx") == 2
    assert swept(*words, into="missing/out") == 1
    assert Path("out/sweep.json").read_text() == '{"mine": 1}'


def test_budgets_have_names_for_files():
    texts = ["drop=1%,0.5%", "size=10MB"]
    assert [b.stem for b in budgets_of(texts)] == ["drop-1pct_size-10MB", "drop-0.5pct_size-10MB"]
    assert [str(b) for b in budgets_of(["latency=5ms"])] == ["latency=5ms"]


@pytest.mark.slow
def test_latencies_are_measured_in_one_go(tmp_path, monkeypatch):
    """The true measurement: all models, and once."""
    working_folder(tmp_path, monkeypatch)
    calls: list[int] = []
    measure = sweep.interleaved_latency

    def counted(models: Any, *given: Any, **named: Any) -> list[Latency]:
        calls.append(len(models))
        return measure(models, *given, **named)

    monkeypatch.setattr(sweep, "interleaved_latency", counted)
    assert swept("--target", "macs=0.8,0.3", "--latency-batch", 64, *QUICK) == 0
    assert calls == [3]
    assert all(float(row["latency_ms_median"]) > 0 for row in rows())
    assert float(rows()[2]["latency_kept"]) < 1
