"""``onnxprune inspect`` and ``onnxprune ops``: what they print, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import command, files, working_folder
from micro_models import build
from small_networks import convolutions

from onnxprune.cli import main
from onnxprune.rules import registered

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def usage(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


def record(capsys, *words: str) -> dict:
    assert main(["inspect", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_prints_totals_groups_and_what_is_frozen(folder, capsys):
    before = files(folder)
    assert main(["inspect", "in.onnx"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    totals, groups, reasons, frozen = said.out.rstrip().split("\n\n")
    assert totals.splitlines()[0] == "MACs    75,008 for input [1, 1, 8, 8]"
    assert len(groups.splitlines()) == 1 + 3
    assert reasons.splitlines()[1].endswith("graph output")
    assert frozen.splitlines()[1].endswith("graph output 'logits'")
    assert files(folder) == before


def test_json_is_the_same_record(folder, capsys):
    found = record(capsys, "in.onnx")
    assert main(["inspect", "in.onnx"]) == 0
    text = capsys.readouterr().out
    assert f"{found['macs']:,}" in text
    assert f"{found['params']:,}" in text
    for row in (*found["groups"], *found["frozen"]):
        assert row["name"] in text
        assert f"{row['macs_share']:.1%}" in text
    assert found["inputs"] == {"input": [1, 1, 8, 8]}
    assert sum(row["producers"] for row in found["reasons"]) == len(found["frozen"])


@pytest.mark.parametrize("shape", ["x:1x3x6x6", "x:1,3,6,6"])
def test_both_ways_of_writing_a_shape(folder, capsys, shape):
    model = convolutions()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    onnx.save(model, "open.onnx")
    assert "--shape" in record(capsys, "open.onnx")["notes"][0]
    found = record(capsys, "open.onnx", "--shape", shape)
    assert found["macs"] == (8 * 27 + 4 * 72) * 36
    assert found["notes"] == []


def test_the_name_of_an_input_may_hold_a_colon(folder, capsys):
    model = convolutions()
    model.graph.input[0].name = model.graph.node[0].input[0] = "x:0"
    onnx.save(model, "colon.onnx")
    assert record(capsys, "colon.onnx", "--shape", "x:0:2x3x8x8")["inputs"] == {"x:0": [2, 3, 8, 8]}


@pytest.mark.parametrize("shape", ["x", "1x3x8x8", "x:", "x:1x3xHxW", "x:1x0x8x8", "x:1x-3"])
def test_a_misspelt_shape_is_wrong_usage(folder, capsys, shape):
    assert usage("inspect", "in.onnx", "--shape", shape) == 2
    assert "name:1x3x224x224" in capsys.readouterr().err


def test_two_shapes_of_one_input_are_wrong_usage(folder, capsys):
    assert usage("inspect", "in.onnx", "--shape", "input:1x1", "--shape", "input:2x1") == 2
    assert "one --shape for each input" in capsys.readouterr().err


def test_other_wrong_usage(folder):
    assert usage("inspect") == 2
    assert usage("inspect", "in.onnx", "--calib", "calib.npz") == 2
    assert usage("ops", "--json", "--markdown") == 2
    assert usage("inspect", "--help") == usage("ops", "--help") == 0


def quantised() -> onnx.ModelProto:
    return build(
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Gemm (d, w)",
        {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "w": (6, 5)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("missing.onnx",), "missing.onnx: no such file"),
        (("calib.npz",), "calib.npz: not a readable ONNX model"),
        (("quantised.onnx",), "prune the float model first, then quantise it"),
        (("in.onnx", "--shape", "x:1x1x8x8"), "the model's inputs are 'input'"),
        (("in.onnx", "--shape", "input:1x3x8x8"), "does not fit [batch, 1, 8, 8]"),
    ],
)
def test_refusals(folder, capsys, words, part):
    onnx.save(quantised(), "quantised.onnx")
    assert main(["inspect", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("onnxprune: ")
    assert part in said.err


def test_a_model_without_groups_is_described_too(folder, capsys):
    model = build("y = Gemm (x, w)", {"w": (6, 5)}, inputs="float[N,6] x", outputs="float[N,5] y")
    onnx.save(model, "single.onnx")
    assert main(["inspect", "single.onnx"]) == 0
    assert "nothing can be pruned" in capsys.readouterr().out


def test_the_process_dispatches(folder):
    done = command("inspect", "in.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("MACs")


def test_a_reader_may_stop_early(folder):
    words = [sys.executable, "-m", "onnxprune", "inspect", "in.onnx", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


# --- ops ----------------------------------------------------------------------------------------


def test_ops_lists_the_registry(capsys):
    assert main(["ops", "--json"]) == 0
    rows = {(row["domain"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {(domain or "ai.onnx", op) for domain, op in registered()}
    assert rows["ai.onnx", "Split"]["fixup"]
    assert not rows["ai.onnx", "Concat"]["fixup"]
    assert all(row["rule"].endswith(".") for row in rows.values())
    assert main(["ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [name for _, name in rows]


def test_the_page_of_operators_is_what_ops_prints(capsys):
    assert main(["ops", "--markdown"]) == 0
    fresh = PAGE.read_text(encoding="utf-8") == capsys.readouterr().out
    assert fresh, "run: onnxprune ops --markdown > docs/operators.md"
