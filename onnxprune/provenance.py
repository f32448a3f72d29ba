"""From the report of a run to the record that its model carries; see ``metadata``."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import onnx

from onnxprune.forecast import Forecast
from onnxprune.metadata import ORIGIN, PLAN, PREFIX, RECOVERED, Record
from onnxprune.plan import Plan
from onnxprune.report import Report

Said = TypeVar("Said", Report, Forecast)

VERSION, SOURCE, SOURCE_GRAPH = ORIGIN
CHUNK = 1 << 20
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""In what Python prints of a criterion of the user: another one in every process."""


def file_sha256(model: str | Path | onnx.ModelProto) -> str | None:
    """SHA-256 of a model's file, as ``sha256sum`` has it; None for a model that is no file."""
    if isinstance(model, onnx.ModelProto):
        return None
    state = hashlib.sha256()
    with Path(model).open("rb") as file:
        while chunk := file.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()


def origin(plan: Plan, file: str | None) -> dict[str, str]:
    """The part of a record that names the original.

    Args:
        plan: what is cut, which holds the digest of the original's graph and weights.
        file: SHA-256 of its file; None for none.
    """
    known = {VERSION: version("onnxprune"), SOURCE_GRAPH: plan.model}
    return known if file is None else known | {SOURCE: file}


def record_of(report: Report | Forecast, plan: Plan, layers: int, file: str | None) -> Record:
    """The record of a run: the same for the same run at another time, or into another file.

    Args:
        report: what was asked for and measured, or is foreseen.
        plan: what was cut.
        layers: layers with recovered weights.
        file: SHA-256 of the original's file; None for none.
    """
    settings = {key: value for key, value in report.settings.items() if key != "versions"}
    text = ADDRESS.sub("", json.dumps(settings, sort_keys=True, default=str))
    error = max((output.relative_error for output in report.outputs), default=None)
    found = {
        "targets": ", ".join(map(str, settings["target"])) or _level(settings),
        "method": str(settings["method"]),
        "settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "samples": ", ".join(f"{name}={count}" for name, count in report.samples.items()),
        "source_macs": str(report.before.macs),
        "macs": str(report.after.macs),
        "source_params": str(report.before.params),
        "params": str(report.after.params),
        "relative_error": None if error is None else f"{error:.4g}",
    }
    known = {PREFIX + name: value for name, value in found.items() if value is not None}
    known |= {PLAN: plan.fingerprint, RECOVERED: str(layers)}
    return origin(plan, file) | known


def _level(settings: dict[str, object]) -> str:
    """What stands in place of targets where the settings fix the counts, or the default target."""
    fixed = [f"{name}={settings[name]}" for name in ("cutoff", "information") if settings[name]]
    return ", ".join(fixed) or "default"


def weighed(report: Said, size: int) -> Said:
    """The report, or what is foreseen, with the size of the file as it is with its record."""
    targets = [
        replace(check, reached=float(size)) if check.target.kind == "size" else check
        for check in report.targets
    ]
    return replace(report, after=replace(report.after, bytes=size), targets=targets)
