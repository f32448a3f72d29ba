"""The benchmark of curves: paired differences, resuming, searching a peer's ratio, the tables."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_models import build

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import bench_curves  # noqa: E402
from curve_methods import NEAR, NearestMacs, macs_of  # noqa: E402
from curve_rows import Job, Row, append, missing, paired, recorded  # noqa: E402
from curve_tables import tables  # noqa: E402

from onnxprune.errors import OnnxPruneError  # noqa: E402

JOB = Job("resnet20_cifar10", "onnxprune", 0.5, 0, "own", 1000, "resnet20_cifar10")
ROW = Row(JOB, 200, 180, 12, 4, 0.49, 0.6, 0.8, None, 1.5)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
@settings(deadline=None)
def test_differences_are_those_of_the_images(images: list[tuple[bool, bool]]) -> None:
    before, after = np.array(images).T
    row = Row(JOB, **paired(before, after))
    gap = after.astype(float) - before.astype(float)
    assert row.base_accuracy == pytest.approx(100 * before.mean())
    assert row.accuracy == pytest.approx(100 * after.mean())
    assert row.difference == pytest.approx(100 * gap.mean(), abs=1e-9)
    want = 100 * gap.std(ddof=1) / np.sqrt(len(gap))
    assert row.standard_error == pytest.approx(want, abs=1e-9)


def test_the_paired_error_is_that_of_resampling(rng: np.random.Generator) -> None:
    """Far smaller than the error of either accuracy, where networks mostly agree."""
    before = rng.random(400) < 0.7
    after = before ^ (rng.random(400) < 0.05)
    draws = rng.integers(0, 400, (4000, 400))
    gaps = after[draws].mean(axis=1) - before[draws].mean(axis=1)
    row = Row(JOB, **paired(before, after))
    assert row.standard_error == pytest.approx(100 * gaps.std(), rel=0.1)
    assert row.standard_error < 0.6 * 100 * before.std() / 20


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    failed = Row(replace(JOB, method="l1"), fault="TargetError: no")
    for row in (ROW, failed):
        append(path, row)
    assert recorded(path)[0] == ROW
    assert recorded(path)[1].job == failed.job
    assert recorded(path)[1].fault == "TargetError: no"
    assert "NaN" not in path.read_text(encoding="utf-8")  # which is no JSON
    assert recorded(tmp_path / "none") == []


def test_only_what_is_missing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[Job] = []

    def measure(job: Job, tests: int) -> Row:
        if len(measured) == 4 and tests == 200:
            raise KeyboardInterrupt
        measured.append(job)
        return replace(ROW, job=job)

    monkeypatch.setattr(bench_curves, "measure", measure)
    monkeypatch.setattr(bench_curves, "SHARED", tmp_path)
    path = tmp_path / "rows.jsonl"
    words = ["--part", "curves", "--network", "vgg16_cifar10", "--method", "onnxprune"]
    words += ["--json", str(path), "--test-images"]
    with pytest.raises(KeyboardInterrupt):
        bench_curves.main([*words, "200"])
    assert len(recorded(path)) == 4
    bench_curves.main([*words, "100"])
    assert len(measured) == len(set(measured)) == len(recorded(path)) == 15
    assert {job.draw for job in measured} == {0, 1, 2}
    assert "### vgg16_cifar10.onnx" in capsys.readouterr().out


def test_filters_choose_jobs() -> None:
    jobs = list(bench_curves.curves())
    assert len(jobs) == len(set(jobs)) == 7 * 5 * (3 + 13)
    assert missing(jobs, [Row(job) for job in jobs[5:]]) == jobs[:5]
    both = [*bench_curves.sizes(), *bench_curves.shifts()]
    assert JOB in both
    assert len(both) > len(set(both))  # half the MACs with the usual images belong to both


@pytest.fixture
def convolutions() -> onnx.ModelProto:
    return build(
        "c = Conv <pads=[1,1,1,1]> (x, w1) h = Relu(c) y = Conv <pads=[1,1,1,1]> (h, w2)",
        {"w1": (16, 3, 3, 3), "w2": (4, 16, 3, 3)},
    )


def cut(model: onnx.ModelProto, ratio: float) -> onnx.ModelProto:
    """The fixture with as many of its inner channels as a ratio leaves, down to 8."""
    left = max(8, round(16 * (1 - ratio)))
    return build(
        "c = Conv <pads=[1,1,1,1]> (x, w1) h = Relu(c) y = Conv <pads=[1,1,1,1]> (h, w2)",
        {"w1": (left, 3, 3, 3), "w2": (4, left, 3, 3)},
    )


def test_the_nearest_macs_are_found(convolutions: onnx.ModelProto) -> None:
    asked: list[float] = []

    def prune(ratio: float) -> onnx.ModelProto:
        asked.append(ratio)
        return cut(convolutions, ratio)

    nearest = NearestMacs(prune, lambda ratio: cut(convolutions, ratio), convolutions)
    for left in (14, 11, 8):
        assert macs_of(nearest(left / 16)) / macs_of(convolutions) == pytest.approx(left / 16)
    assert len(asked) == 3  # the dear one is only asked for the result
    with pytest.raises(OnnxPruneError, match="it keeps at least 50% of the MACs"):
        nearest(0.5 - 2 * NEAR)


def test_the_tables_say_what_the_rows_do() -> None:
    rows = [
        ROW,
        replace(ROW, job=replace(JOB, draw=1), lost=16, won=4),
        replace(ROW, job=replace(JOB, method="l1"), lost=80, won=0, macs=0.44),
        Row(replace(JOB, method="onnxsim"), fault="OnnxPruneError: no"),
        replace(ROW, job=replace(JOB, images=100), lost=40),
        replace(ROW, job=replace(JOB, calibration="noise"), lost=60),
        replace(ROW, job=replace(JOB, network="resnet56_cifar10"), won=20),
    ]
    lines = tables(rows).splitlines()
    assert "| onnxprune | 85.0 (-5.0 ± 2.1) |" in lines
    assert "| l1 | 50.0 (-40.0 ± 3.5, 44% MACs) |" in lines
    assert "| onnxsim | - |" in lines
    assert "- onnxsim at 50%: OnnxPruneError: no" in lines
    assert "| its latency, batch 1 | 80% |" in lines
    assert not any("batch 32" in line for line in lines)
    assert "| its draws, lowest and highest | 84.0 to 86.0 |" in lines
    assert "| onnxprune | 72.0 | 85.0 ± 1.4 |" in lines
    assert "| resnet20_cifar10.onnx, onnxprune, 50% | 85.0 ± 1.4 | 62.0 |" in lines
    assert any(line.startswith("| resnet56_cifar10, resnet20_cifar10, ") for line in lines)
    for block in tables(rows).split("\n\n"):
        table = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) <= 1


def test_plots_are_the_same_for_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import plot_curves

    rows = [ROW, replace(ROW, job=replace(JOB, fraction=0.8), macs=0.8, lost=2)]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        plot_curves.draw(rows, tmp_path / folder)
    first, second = (p.read_bytes() for p in sorted(tmp_path.rglob("curves-*.svg")))
    assert first == second
