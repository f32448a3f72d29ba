"""The corpus runner: two models made here, and every file of the corpus where it is present."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from micro_models import build

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import run_corpus  # noqa: E402

AVERAGE_CUT = 0.89
"""Share of the MACs in layers that became smaller, over the corpus; measured and rounded down."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    convolutions = build(
        "c = Conv <pads=[1,1,1,1]> (x, w1) h = Relu(c) y = Conv <pads=[1,1,1,1]> (h, w2)",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)},
    )
    onnx.save(convolutions, tmp_path / "convolutions.onnx")
    quantised = build(
        "q = QuantizeLinear(x, scale) d = DequantizeLinear(q, scale) y = Gemm <transB=1> (d, w)",
        {"scale": (), "w": (5, 6)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )
    onnx.save(quantised, tmp_path / "quantised.onnx")
    return tmp_path


def test_a_model_is_cut_and_another_refused(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_corpus.main([str(folder), "--json", str(folder / "rows.json")]) == 0
    cut, refused = json.loads((folder / "rows.json").read_text())
    assert cut["outcome"] == "ok"
    assert cut["macs"] == 8 * 8 * 9 * (3 * 8 + 8 * 4)
    assert cut["removed"] == cut["at_most"] == 0.5
    assert cut["cut"] == 1.0
    assert cut["gap"] < 1e-5
    assert refused["outcome"] == "refused"
    assert "prune the float model first" in refused["why"]
    shown = capsys.readouterr()
    assert "1 ok, 1 refused" in shown.out
    assert "convolutions.onnx ... ok" in shown.err


def test_markdown_has_a_cell_for_every_column(folder: Path) -> None:
    header, ruler, *rows = run_corpus.markdown(run_corpus.run([folder])).splitlines()
    assert header.startswith("| model | producer |")
    assert {line.count("|") for line in (header, ruler, *rows)} == {header.count("|")}
    assert len(rows) == 2


def test_whatever_happens_is_a_row_and_an_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("nobody thought of it")

    monkeypatch.setattr(run_corpus, "apply", broken)
    assert run_corpus.main([str(folder)]) == 1
    assert "CRASH: KeyError: 'nobody thought of it'" in capsys.readouterr().out


def test_wrong_outputs_are_a_mismatch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> onnx.ModelProto:
        model = apply(*arguments)
        weight = model.graph.initializer[0]
        values = onnx.numpy_helper.to_array(weight) * 1.001
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weight.name))
        return model

    apply = run_corpus.apply
    monkeypatch.setattr(run_corpus, "apply", wrong)
    assert run_corpus.examine(folder / "convolutions.onnx").outcome == "MISMATCH"


@pytest.mark.slow
@pytest.mark.skipif(not run_corpus.FOLDER.is_dir(), reason=f"{run_corpus.FOLDER} is not there")
def test_the_corpus_is_cut_or_says_why_not() -> None:
    rows = run_corpus.run([run_corpus.FOLDER])
    assert len(rows) >= 30
    assert [row for row in rows if row.outcome in run_corpus.FAILURES] == []
    assert all(row.why for row in rows if row.outcome != "ok")
    assert run_corpus.average_cut(rows) >= AVERAGE_CUT
