"""Reports as runs write them, of groups with drawn spectra and curves."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

from onnxprune.criteria.spectra import Spectrum
from onnxprune.report import Footprint, GroupReport, Price, Report

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
        groups.append(GroupReport(name, size, keep, curve, {"fc": (0.1, "slice")}, spectrum))
    made = Report(
        settings=SETTINGS | {"allocation": allocation},
        samples={"fit": 8, "tune": 1, "held_out": 1},
        before=Footprint(1000, 2000, 4000, None),
        after=Footprint(400, 1000, 1600, None),
        outputs=[],
        targets=[],
        metric=None,
        share=share,
        sections=[],
        groups=groups,
        frozen=[],
        notes=[],
    )
    record: dict[str, Any] = json.loads(json.dumps(made.to_dict()))
    return record


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
