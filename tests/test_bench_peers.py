"""The benchmark of peers measures what it says; needs the peers."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import build

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import bench_peers  # noqa: E402
from bench_peers import Case, Row  # noqa: E402

COLUMNS = bench_peers.HEADER


@pytest.fixture
def case(rng: np.random.Generator) -> Case:
    model = build(
        "c = Conv <pads=[1,1,1,1]> (x, w1) h = Relu(c) y = Conv <pads=[1,1,1,1]> (h, w2)",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)},
    )
    samples, unseen = (rng.standard_normal((n, 3, 8, 8)).astype(np.float32) for n in (64, 32))
    return Case("convolutions", model, {"x": samples}, {"x": unseen})


def test_this_package_removes_half_of_the_channels(case: Case) -> None:
    row = bench_peers.measure(case, "onnxprune")
    assert row.valid == "yes"
    assert row.macs == 0.5
    assert row.params == pytest.approx(0.5, abs=0.01)  # the recovered layer gets a bias
    assert 0 < row.error < 1


def test_onnxsim_removes_half_of_the_channels(case: Case) -> None:
    pytest.importorskip("onnxsim")
    for tool in ("onnxsim", "onnxsim, batch 1", "onnxsim, samples"):
        row = bench_peers.measure(case, tool)
        assert row.valid == "yes"
        assert row.params == row.macs == 0.5
        assert row.error > 0


def test_what_a_tool_does_wrong_is_said(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Case) -> onnx.ModelProto:
        raise IndexError("out of range\nsomewhere")

    monkeypatch.setitem(bench_peers.TOOLS, "onnxprune", broken)
    assert bench_peers.measure(case, "onnxprune").valid == "failed: IndexError: out of range"
    other = build("y = Conv (x, w1)", {"w1": (4, 3, 3, 3)})
    monkeypatch.setitem(bench_peers.TOOLS, "onnxprune", lambda _: other)
    assert bench_peers.measure(case, "onnxprune").valid.startswith("outputs [[32, 4, 6, 6]] inst")


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch_pruning", "timm", "torchvision"))),
    reason="torch_pruning, timm or torchvision is not installed",
)
def test_torch_pruning_keeps_the_outputs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--only", "^vit_plain$", "--tool", "Torch-Pruning", "--json", str(tmp_path / "rows")]
    bench_peers.main(words)
    (row,) = bench_peers.recorded(tmp_path / "rows")
    assert row.valid == "yes"
    assert row.params > 0.5
    assert row.norm_channels == 0.5
    assert re.search(r"Torch-Pruning: 1 networks, 1 valid, 1 cut", capsys.readouterr().out)
    bench_peers.main(words)  # nothing is left to measure
    assert len(bench_peers.recorded(tmp_path / "rows")) == 1


def test_the_table_has_a_cell_for_every_column() -> None:
    lines = bench_peers.table([Row("a", "onnxprune", 0.5, 0.5, error=0.1, seconds=2.0)])
    assert {line.count("|") for line in lines.splitlines()} == {len(COLUMNS) + 1}
    assert "| a | onnxprune | 50.0% | 50.0% |  | yes | 0.100 | 2.0 |" in lines
