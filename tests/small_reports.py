"""Reports as runs write them, of groups with drawn spectra and curves."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

from onnxprune.criteria.spectra import Spectrum
from onnxprune.latency import Latency
from onnxprune.report import Report
from onnxprune.report_parts import (
    ConsumerReport,
    Footprint,
    GroupReport,
    LayerReport,
    Price,
    Run,
)

SETTINGS = {
    "target": ["macs=0.5"],
    "method": "snp",
    "criterion": "snp",
    "allocation": "cumvar",
    "recovery": "triangular",
    "order": "zca",
    "moments": "covariance",
    "cutoff": None,
    "information": None,
}
RUN = Run(
    command="onnxprune in.onnx out.onnx --calib 'my samples.npz' --target macs=0.5",
    model="in.onnx",
    digests={"before": "01" * 32, "after": "ef" * 32},
    started="2026-01-31T12:34:56+01:00",
    seconds=83.25,
    platform="Linux 6, x86_64",
)


def report(
    sizes: tuple[int, ...] = (8, 16, 4),
    *,
    allocation: str = "cumvar",
    share: float | None = 0.125,
    divergence: bool = True,
) -> dict[str, Any]:
    """The JSON values of a report of groups with these sizes, half of whose channels are kept."""
    rng = np.random.default_rng(len(sizes))
    groups = []
    for at, size in enumerate(sizes):
        errors = np.sort(rng.uniform(0.01, 1.0, size))[::-1] * (np.arange(size) < size - 1)
        curve = [
            Price(k, float(e), float(e**2) if divergence else None)
            for k, e in enumerate(errors, start=1)
        ]
        pivots = rng.uniform(0.1, 2.0, size)
        pivots[-1] = 0.0  # a channel that the others explain
        components = np.sort(rng.uniform(0.0, 1.0, size) ** 4)[::-1]
        spectrum = Spectrum(pivots.tolist(), components.tolist())
        name = f"/layer{at // 4}/layer{at // 4}.{at % 4}/conv/Conv"
        keep = list(range(size // 2))
        consumers = {"fc": ConsumerReport(0.3, 0.1, "slice")}
        macs = 1 / len(sizes)
        groups.append(GroupReport(name, size, keep, curve, consumers, spectrum, [name], macs))
    made = Report(
        settings=SETTINGS | {"allocation": allocation},
        run=RUN,
        samples={"fit": 8, "tune": 1, "held_out": 1},
        before=Footprint(1000, 2000, 4000, Latency.of(rng.uniform(2, 3, 50), 60)),
        after=Footprint(400, 1000, 1600, Latency.of(rng.uniform(1, 2, 50), 60)),
        outputs=[],
        targets=[],
        metric=None,
        share=share,
        sections=[],
        groups=groups,
        layers=[LayerReport(g.name, g.size, len(g.keep), g.macs_share) for g in groups],
        frozen=[],
        notes=[],
    )
    record: dict[str, Any] = json.loads(json.dumps(made.to_dict()))
    return record


HOSTILE = "<script>document.title = 'owned'</script>\"'&amp;"
"""The name of a node that a page must show and not run."""


def full_report(sizes: tuple[int, ...] = (8, 16, 4), name: str = HOSTILE) -> dict[str, Any]:
    """The JSON values of a report that has every part, with a name wherever a model's stands."""
    record = report(sizes)
    first = record["groups"][0]
    first |= {"name": name, "producers": [name], "residual": 0.4}
    first["consumers"] = {
        name: {"sliced": 0.3, "error": 0.0125, "recovery": name},
        "/silent/Conv": {"sliced": None, "error": None, "recovery": "slice"},
    }
    record["layers"][0]["name"] = name
    record["run"] |= {"command": f"onnxprune {name}", "model": name}
    record["settings"] |= {
        "sequential": True,
        "seed": 7,
        "provider": "cpu",
        "threads": 1,
        "latency_batch": None,
        "include": name,
        "refine": {"budget": "30s", "augment": [name]},
        "versions": {"onnxprune": "0.1.0", "onnxruntime": "1.2.3", "python": "3.11.7"},
    }
    names = (name, "boxes")
    record["outputs"] = [
        {
            "name": output,
            "samples": 16,
            "relative_error": 0.0681 * at,
            "cosine": 0.99,
            "top1_agreement": None if output == "boxes" else 0.9375,
            "divergence": 0.004,
        }
        for at, output in enumerate(names, start=1)
    ]
    record["targets"] = [
        _target("macs=0.5", 1000, 990, 2000),
        _target("drop=1%", 0.01, 0.0101, None),
    ]
    record["metric"] = {"name": name, "before": 0.91, "after": 0.8999}
    record["sections"] = [
        {"name": name, "layers": [name], "groups": [], "macs_share": 0.125, "divergence": 0.03}
    ]
    record["frozen"] = [
        {"name": name, "frozen": 10, "size": 10, "reason": name, "macs_share": 0.25},
        {"name": "/lstm/LSTM", "frozen": 0, "size": 0, "reason": "no rule", "macs_share": 0.5},
    ]
    record["notes"] = [name]
    trials = [{"rate": 0.001, "divergence": 0.02}, {"rate": 1.0, "divergence": None}]
    record["refinement"] = {
        "before": 0.03,
        "after": 0.01,
        "seconds": 30.5,
        "steps": 1200,
        "rate": 0.001,
        "trials": trials,
        "improved": True,
    }
    return record


def _target(target: str, limit: float, reached: float, original: float | None) -> dict[str, Any]:
    return {"target": target, "limit": limit, "reached": reached, "original": original}


def changed(record: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy of a record with another value at a path of keys."""
    copied = copy.deepcopy(record)
    inner: Any = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return copied


def without(record: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """A copy of a record that lacks what lies at a path of keys."""
    copied = copy.deepcopy(record)
    inner: Any = copied
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return copied
