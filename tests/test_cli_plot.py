"""``onnxprune plot``: a figure of a run's report, or a reason why there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import files, run, working_folder
from small_reports import report, without

from onnxprune import figures
from onnxprune.cli import main
from onnxprune.saved_report import SavedReport

STARTS = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "SVG": b"<?xml"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a report, and a figure that was there before."""
    monkeypatch.chdir(tmp_path)
    Path("report.json").write_text(json.dumps(report()), encoding="utf-8")
    Path("old.svg").write_text("precious", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", STARTS)
def test_the_ending_says_the_format(folder, capsys, kind):
    before = files(folder)
    assert main(["plot", "report.json", f"figure.{kind}"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (folder / f"figure.{kind}").read_bytes().startswith(STARTS[kind])
    assert {name: files(folder)[name] for name in before} == before
    assert set(files(folder)) == {*before, f"figure.{kind}"}


def test_a_figure_of_a_real_run(tmp_path, monkeypatch):
    """The components that the panel counts are the channels that squeeze keeps, or its floor."""
    working_folder(tmp_path, monkeypatch)
    words = ("--method", "squeeze", "--information", 0.99, "-q", "--report", "report.json")
    assert run(*words) == 0
    assert main(["plot", "report.json", "figure.svg"]) == 0
    assert Path("figure.svg").read_bytes().startswith(b"<?xml")
    saved = SavedReport.load("report.json")
    panels = {axes.get_label(): axes for axes in figures.draw(saved).axes}
    (ticks,) = panels["components"].get_lines()
    floors = [group.curve[0].count / group.size for group in saved.groups]
    kept = [float(bar.get_height()) for bar in panels["kept"].patches]
    assert kept == np.maximum(ticks.get_ydata(), floors).tolist()
    assert kept != floors


def test_a_page_needs_no_matplotlib(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "report.json", "page.html"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (folder / "page.html").read_bytes().startswith(b"<!doctype html>")


def test_a_history_has_no_page(folder, capsys):
    Path("run.csv").write_text("epoch", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["plot", "run.csv", "page.html"])
    assert "a history is drawn as a figure" in capsys.readouterr().err
    assert not (folder / "page.html").exists()


@pytest.mark.parametrize("out", ["figure.jpg", "figure", "figure.svg.json", "report.json"])
def test_an_unknown_ending_is_wrong_usage(folder, capsys, out):
    before = files(folder)
    with pytest.raises(SystemExit, match="2"):
        main(["plot", "report.json", out])
    assert f"{out}: name a file that ends in .html, .svg, .png, .pdf" in capsys.readouterr().err
    assert files(folder) == before


def test_the_report_is_never_overwritten(folder, capsys):
    (folder / "linked.svg").symlink_to(folder / "report.json")
    before = files(folder)
    with pytest.raises(SystemExit, match="2"):
        main(["plot", "report.json", "linked.svg"])
    assert "OUT would overwrite REPORT.json" in capsys.readouterr().err
    assert files(folder) == before


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "report.json: not readable as JSON"),
        ("{", "report.json: not readable as JSON"),
        ("[1]", "report.json: not a report of onnxprune"),
        (json.dumps(without(report(), "groups", 0, "spectrum")), "report is of an older version"),
    ],
)
def test_what_is_no_report_leaves_the_figure_that_was_there(folder, capsys, content, part):
    Path("report.json").unlink()
    if content is not None:
        Path("report.json").write_text(content, encoding="utf-8")
    before = files(folder)
    assert main(["plot", "report.json", "old.svg"]) == 1
    assert part in capsys.readouterr().err
    assert files(folder) == before


def test_a_missing_folder_is_said(folder, capsys):
    assert main(["plot", "report.json", "missing/figure.svg"]) == 1
    assert "missing or cannot be written" in capsys.readouterr().err


def test_a_failure_while_writing_leaves_what_was_there(folder, capsys, monkeypatch):
    before = files(folder)

    def fails(_, path, **options):
        Path(path).write_text("half a fig", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures.Figure, "savefig", fails)
    assert main(["plot", "report.json", "old.svg"]) == 1
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert files(folder) == before


def test_without_matplotlib_it_says_what_to_install(folder, capsys, monkeypatch):
    before = files(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("figures", "panels"):
        monkeypatch.delitem(sys.modules, f"onnxprune.{name}")
        monkeypatch.delattr(f"onnxprune.{name}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "report.json", "old.svg"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "pip install matplotlib, or this package with its extra [plot]" in said.err
    assert files(folder) == before


def test_pruning_imports_no_matplotlib():
    script = "import sys, onnxprune.cli, onnxprune.api; print('matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout == "False\n"
