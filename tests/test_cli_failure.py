"""The command when it fails: what was there stays, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import QUICK, files, finite, run, working_folder

from onnxprune import api
from onnxprune.errors import ValidationError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


@pytest.mark.parametrize("existing", [False, True])
def test_an_unreachable_target_leaves_no_litter(folder, capsys, existing):
    if existing:
        (folder / "out.onnx").write_text("precious", encoding="utf-8")
    before = files(folder)
    words = ("--target", "macs=0.001", "--report", "r.json", "--plan", "p.json")
    assert run(*words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "smallest reachable value is 0.0276" in said.err
    assert "/1/Gemm" in said.err
    assert files(folder) == before


@pytest.mark.parametrize("failure", [ValidationError("spoilt"), KeyboardInterrupt()])
def test_a_failure_while_validating_leaves_nothing(folder, capsys, monkeypatch, failure):
    (folder / "out.onnx").write_text("precious", encoding="utf-8")
    before = files(folder)

    def fails(path, *rest):
        assert path.stat().st_size > 10_000  # the model is there, under no name yet
        assert folder in path.resolve().parents
        raise failure

    monkeypatch.setattr(api, "check_file", fails)
    assert run(*QUICK, "--report", "r.json") in (1, 130)
    assert capsys.readouterr().out == ""
    assert files(folder) == before
    assert sorted(p.name for p in folder.iterdir()) == ["calib.npz", "in.onnx", "out.onnx"]


@pytest.mark.parametrize("out", ["missing/out.onnx", "calib.npz/out.onnx"])
def test_a_missing_folder_is_said_before_the_work(folder, capsys, out):
    assert run(*QUICK, out=out) == 1
    said = capsys.readouterr().err
    assert f"{out}: the folder" in said
    assert "missing or cannot be written" in said
    assert "60 samples" not in said


def test_a_read_only_folder_is_said_before_the_work(folder, capsys, monkeypatch):
    (folder / "fixed").mkdir(mode=0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "fixed")  # also root's
    assert run(*QUICK, out="fixed/out.onnx") == 1
    assert "missing or cannot be written" in capsys.readouterr().err
    assert not list((folder / "fixed").iterdir())


def test_a_folder_that_turns_read_only_is_said(folder, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxprune.model.onnx.save", full)
    before = files(folder)
    assert run(*QUICK) == 1
    assert "out.onnx: cannot be written (No space left on device)" in capsys.readouterr().err
    assert files(folder) == before


def test_a_record_that_cannot_be_written_is_said(folder, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxprune.report.Report.save", full)
    assert run(*QUICK, "--report", "r.json") == 1
    assert "the model was written, but a record was not" in capsys.readouterr().err
    assert finite("out.onnx")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    Path("out.onnx").unlink()
    monkeypatch.setattr("onnxprune.page.document.page", full)
    assert run(*QUICK, "--report", "r.html") == 1
    assert "the model was written, but a record was not" in capsys.readouterr().err
    assert finite("out.onnx")
    assert not Path("r.html").exists()


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MemoryError(), "out of memory (no more can be had); bound what is held with --max-memory"),
        (OSError(28, "No space left on device", "t"), "onnxprune: t: No space left on device"),
    ],
)
def test_what_the_system_lacks_is_said(folder, capsys, monkeypatch, failure, said):
    def fails(*_):
        raise failure

    monkeypatch.setattr(api, "check_file", fails)
    before = files(folder)
    assert run(*QUICK) == 1
    assert said in capsys.readouterr().err
    assert files(folder) == before
