"""One record, two views: strict JSON that loses nothing, and a table."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_reports import RUN

from onnxprune.comparison import OutputDistance
from onnxprune.criteria.spectra import Spectrum
from onnxprune.latency import Latency
from onnxprune.report import Report
from onnxprune.report_parts import (
    ConsumerReport,
    Footprint,
    FrozenReport,
    GroupReport,
    LayerReport,
    MetricReport,
    Price,
    SectionReport,
)
from onnxprune.target import Target
from onnxprune.verdict import Check


def distance(*, scores: bool = True) -> OutputDistance:
    found = OutputDistance("logits", scores)
    old = np.array([[3.0, 1.0], [0.0, 4.0]])
    found.add(old, old[:, ::-1] if scores else old * 0.9)
    return found


REPORT = Report(
    settings={"target": ["macs=0.5"], "seed": 0, "align": "auto", "include": None},
    run=RUN,
    samples={"fit": 76, "tune": 14, "held_out": 10},
    before=Footprint(12_000, 1_000_000, 48_500, Latency(2.0, 3.0, 3.5, 100, [1.5, 2.0, 3.5])),
    after=Footprint(6_000, 450_000, 24_250, Latency(1.0, 1.2, 1.3, 100, [1.0, 1.3])),
    outputs=[distance()],
    targets=[
        Check(Target("macs", 0.5), 500_000.0, 450_000.0, 1_000_000.0),
        Check(Target("drop", 0.01), 0.01, 0.0125, 0.0),
    ],
    metric=MetricReport("judge.py:accuracy", 0.91, 0.8975),
    share=0.125,
    sections=[SectionReport("add1", ("conv3", "relu3", "conv4"), ("conv3",), 0.125, 0.03)],
    groups=[
        GroupReport(
            "conv1",
            4,
            [0, 2, 3],
            [Price(2, 0.2, 0.05), Price(3, 0.01, 0.002), Price(4, 0.0, 0.0)],
            {"conv2": ConsumerReport(0.12, 0.03, "slice")},
            Spectrum([1.0, 0.5, 0.25, 0.0], [1.5, 0.25, 0.0, 0.0]),
            ("conv1", "conv1b"),
            0.5,
            residual=0.4,
        ),
        GroupReport(
            "conv2",
            8,
            list(range(8)),
            [Price(8, 0.0, None)],
            {"fc": ConsumerReport(None, None, "least squares")},
            Spectrum([0.5] * 8, [1.0] * 4 + [0.0] * 4),
            ["conv2"],
            0.125,
        ),
    ],
    layers=[LayerReport("conv1", 4, 3, 0.25), LayerReport("fc", 10, 10, 0.25)],
    frozen=[FrozenReport("fc", 10, 10, "graph output 'logits'", 0.25)],
    notes=["few calibration rows for 1 consumers (conv2)"],
)


def test_json_has_everything():
    record = REPORT.to_dict()
    assert record["settings"] == REPORT.settings
    assert record["samples"] == {"fit": 76, "tune": 14, "held_out": 10}
    assert record["before"] == {
        "params": 12_000,
        "macs": 1_000_000,
        "bytes": 48_500,
        "latency_ms": {
            "median": 2.0,
            "p90": 3.0,
            "p99": 3.5,
            "runs": 100,
            "durations": [1.5, 2.0, 3.5],
        },
    }
    (output,) = record["outputs"]
    assert output["name"] == "logits"
    assert output["samples"] == 2
    assert output["top1_agreement"] == 0.0
    assert output["relative_error"] == REPORT.outputs[0].relative_error
    assert output["divergence"] > 0
    assert record["targets"] == [
        {
            "target": "macs=0.5",
            "limit": 500_000.0,
            "reached": 450_000.0,
            "original": 1_000_000.0,
            "holds": True,
        },
        {"target": "drop=1%", "limit": 0.01, "reached": 0.0125, "original": None, "holds": False},
    ]
    assert record["metric"] == {"name": "judge.py:accuracy", "before": 0.91, "after": 0.8975}
    (section,) = json.loads(json.dumps(record["sections"]))
    assert section == {
        "name": "add1",
        "layers": ["conv3", "relu3", "conv4"],
        "groups": ["conv3"],
        "macs_share": 0.125,
        "divergence": 0.03,
    }
    first, second = record["groups"]
    assert (first["kept"], first["size"], first["keep"]) == (3, 4, [0, 2, 3])
    assert (first["error"], first["divergence"]) == (0.01, 0.002)
    assert first["curve"][0] == {"count": 2, "error": 0.2, "divergence": 0.05}
    assert (first["residual"], second["residual"]) == (0.4, None)
    assert first["consumers"] == {"conv2": {"sliced": 0.12, "error": 0.03, "recovery": "slice"}}
    assert (first["producers"], first["macs_share"]) == (["conv1", "conv1b"], 0.5)
    assert (second["divergence"], second["consumers"]["fc"]["error"]) == (None, None)
    assert record["layers"][0] == {"name": "conv1", "size": 4, "kept": 3, "macs_share": 0.25}
    assert record["run"] == vars(RUN)
    assert record["frozen"] == [
        {
            "name": "fc",
            "frozen": 10,
            "size": 10,
            "reason": "graph output 'logits'",
            "macs_share": 0.25,
        }
    ]
    assert record["notes"] == REPORT.notes


def test_json_survives_a_round_trip(tmp_path):
    path = tmp_path / "report.json"
    REPORT.save(path)
    text = path.read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    assert json.loads(text, parse_constant=refuse) == REPORT.to_dict()
    assert text.endswith("}\n")


def test_what_json_cannot_say_is_null(tmp_path):
    broken = replace(REPORT, samples={"fit": float("nan"), "tune": float("inf"), "held_out": 3})
    broken.save(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["samples"] == {"fit": None, "tune": None, "held_out": 3}


def test_latency_may_be_missing():
    quiet = replace(
        REPORT,
        before=replace(REPORT.before, latency=None),
        after=replace(REPORT.after, latency=None),
    )
    assert quiet.to_dict()["before"]["latency_ms"] is None
    assert "latency" not in quiet.table()
    assert "latency" in REPORT.table()


def test_the_table_has_columns():
    lines = REPORT.table().splitlines()
    header, *rows = lines[:6]
    assert header.split() == ["before", "after", "kept"]
    found = {row[:16].strip(): row[16:].split() for row in rows}
    assert found["params"] == ["12,000", "6,000", "50.0%"]
    assert found["MACs"] == ["1,000,000", "450,000", "45.0%"]
    assert found["file size"] == ["48", "kB", "24", "kB", "50.0%"]
    assert found["latency, median"] == ["2.000", "ms", "1.000", "ms", "50.0%"]
    assert found["latency, p90"] == ["3.000", "ms", "1.200", "ms", "40.0%"]
    assert len({len(row) for row in (header, *rows)}) == 1
    assert all(row.rindex(row.split()[-1]) + len(row.split()[-1]) == len(header) for row in rows)


def test_the_table_sets_what_was_asked_beside_what_was_reached():
    lines = [line.split() for line in REPORT.table().splitlines()]
    at = lines.index(["target", "asked", "reached"])
    assert lines[at + 1] == ["macs=0.5", "at", "most", "50.0%", "45.0%"]
    assert lines[at + 2] == ["drop=1%", "at", "most", "0.01", "0.0125"]
    assert "judge.py:accuracy: 0.9100 before, 0.8975 after" in REPORT.table()


def test_the_table_says_the_rest():
    table = REPORT.table()
    error = REPORT.outputs[0].relative_error
    assert f"output logits: relative error {error:.4f}" in table
    assert "same top class 0.0% (2 held-out samples)" in table
    assert "channels kept: 11 of 12 in 2 groups" in table
    assert "dropped:\n  add1: 3 nodes (12.5% of MACs)" in table
    assert "dropped:" not in replace(REPORT, sections=[]).table()
    assert "fc: 10 of 10 channels (25.0% of MACs): graph output 'logits'" in table
    assert "note: few calibration rows" in table


def test_a_node_of_unknown_channels_is_listed_without_a_count():
    lstm = FrozenReport("lstm", 0, 0, "no channel rule for LSTM ('lstm')", 0.5)
    table = replace(REPORT, frozen=[lstm]).table()
    assert "  lstm (50.0% of MACs): no channel rule for LSTM" in table


def test_outputs_without_classes_have_no_agreement():
    values = replace(REPORT, outputs=[distance(scores=False)])
    assert "same top class" not in values.table()
    assert values.to_dict()["outputs"][0]["top1_agreement"] is None


def test_a_model_without_macs_has_no_share():
    empty = replace(REPORT, before=replace(REPORT.before, macs=0))
    assert "-" in next(row for row in empty.table().splitlines() if row.startswith("MACs"))
