"""``onnxprune apply``: the same bytes from a saved plan, or a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import QUICK, files, run, working_folder
from small_networks import MODELS

from onnxprune.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


@pytest.fixture
def planned(folder) -> Path:
    """A folder after a run that saved its plan."""
    assert run(*QUICK, "-q", "--plan", "plan.json") == 0
    return folder


def test_apply_makes_the_same_bytes(planned, capsys):
    assert set(files(planned)) >= {"plan.json", "plan.npz"}
    words = ["apply", "in.onnx", "plan.json", "again.onnx", "--weights", "plan.npz"]
    assert main(words) == 0
    assert capsys.readouterr() == ("", "")
    assert (planned / "again.onnx").read_bytes() == (planned / "out.onnx").read_bytes()


def test_apply_without_weights_slices(planned):
    assert main(["apply", "in.onnx", "plan.json", "sliced.onnx"]) == 0
    pruned, sliced = (
        [list(t.dims) for t in onnx.load(name).graph.initializer]
        for name in ("out.onnx", "sliced.onnx")
    )
    assert pruned == sliced
    assert onnx.load("sliced.onnx").graph != onnx.load("out.onnx").graph


def spoil(folder: Path) -> None:
    shutil.copy(MODELS / "vgg_digits.onnx", "vgg.onnx")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    Path("text.json").write_text("hello", encoding="utf-8")
    Path("list.json").write_text("[1, 2]", encoding="utf-8")
    Path("newer.json").write_text(json.dumps({**plan, "format": 99}), encoding="utf-8")
    unsorted = json.loads(json.dumps(plan))
    unsorted["edits"][0]["keep"].reverse()
    Path("unsorted.json").write_text(json.dumps(unsorted), encoding="utf-8")
    renamed = json.loads(json.dumps(plan))
    renamed["edits"][0]["group"] = "elsewhere"
    Path("renamed.json").write_text(json.dumps(renamed), encoding="utf-8")
    Path("cut.npz").write_bytes((folder / "plan.npz").read_bytes()[:5000])
    np.save("array.npy", np.zeros(3))
    run(*QUICK, "-q", "--seed", 5, "--target", "macs=0.3", "--plan", "other.json", out="o.onnx")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("vgg.onnx", "plan.json"), "the plan was made for another model"),
        (("missing.onnx", "plan.json"), "missing.onnx: no such file"),
        (("in.onnx", "missing.json"), "missing.json: not a readable plan"),
        (("in.onnx", "text.json"), "text.json: not a readable plan"),
        (("in.onnx", "list.json"), "list.json: not a readable plan"),
        (("in.onnx", "newer.json"), "made by another version of onnxprune"),
        (("in.onnx", "unsorted.json"), "keep must be sorted"),
        (("in.onnx", "renamed.json"), "'elsewhere' of 192 units, which the model lacks"),
        (("in.onnx", "plan.json", "--weights", "calib.npz"), "not a readable weights file"),
        (("in.onnx", "plan.json", "--weights", "missing.npz"), "not a readable weights file"),
        (("in.onnx", "plan.json", "--weights", "cut.npz"), "not a readable weights file"),
        (("in.onnx", "plan.json", "--weights", "array.npy"), "not a readable weights file"),
        (("in.onnx", "plan.json", "--weights", "other.npz"), "recover them for this plan"),
    ],
)
def test_apply_refuses_what_does_not_fit(planned, capsys, words, part):
    spoil(planned)
    capsys.readouterr()
    before = files(planned)
    model, plan, *rest = words
    assert main(["apply", model, plan, "result.onnx", *rest]) == 1
    assert part in capsys.readouterr().err
    assert files(planned) == before


@pytest.mark.parametrize("out", ["in.onnx", "plan.json", "plan.npz"])
def test_apply_overwrites_nothing_it_reads(planned, capsys, out):
    before = files(planned)
    with pytest.raises(SystemExit, match="2"):
        main(["apply", "in.onnx", "plan.json", out, "--weights", "plan.npz"])
    assert "OUT would overwrite" in capsys.readouterr().err
    assert files(planned) == before


def test_apply_says_where_it_cannot_write(planned, capsys):
    assert main(["apply", "in.onnx", "plan.json", "missing/out.onnx"]) == 1
    assert "missing or cannot be written" in capsys.readouterr().err
