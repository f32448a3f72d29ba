"""Digests by which what was made before is recognised: of code, models, samples and settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.calibration import Calibration
from onnxprune.options import Options
from onnxprune.rewrite import digest
from onnxprune.runtime import VERSION
from onnxprune.timing_cache import machine_name

NO_MATTER = frozenset(
    {"progress", "max_memory", "latency", "preprocessing", "num_samples", "cache", "cache_size"}
)
"""Options that do not change a result, or that the digest of the samples speaks for."""
NAMES_FILES = frozenset({"evaluate", "labels", "refine", "statistics"})
"""Options in which a text may name a file."""


def of_values(values: object) -> str:
    """A SHA-256 of JSON values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def environment() -> dict[str, str]:
    """What numbers depend on besides what goes in: code, libraries and processor."""
    libraries = {name: version(name) for name in ("numpy", "onnx", "scipy")}
    return {"code": _code(), "onnxruntime": VERSION, "machine": machine_name(), **libraries}


@lru_cache(maxsize=1)
def _code() -> str:
    """A digest of this package's source: versions are too coarse between releases."""
    state = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        state.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return state.hexdigest()


def of_model(model: onnx.ModelProto) -> str:
    """A digest of graph, weights and operator sets; names and metadata of the file do not count."""
    opsets = sorted((entry.domain, entry.version) for entry in model.opset_import)
    return of_values([digest(model), model.ir_version, opsets])


def of_samples(samples: Calibration) -> str:
    """A digest of the samples that are used, as the model gets them, in their order."""
    state = hashlib.sha256()
    for index in samples.selected:
        for name, array in samples.store.read(int(index)).items():
            state.update(f"{name} {array.dtype.str} {array.shape}".encode())
            state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def of_options(options: Options) -> dict[str, Any]:
    """The options that a result depends on, files that they name by their content."""
    return {
        field.name: _value(getattr(options, field.name), files=field.name in NAMES_FILES)
        for field in fields(options)
        if field.name not in NO_MATTER
    }


def of_file(path: str | Path) -> str:
    """A SHA-256 of a file's bytes; empty if it cannot be read."""
    state = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    except OSError:
        return ""
    return state.hexdigest()


def _value(value: Any, *, files: bool) -> Any:
    """JSON values that stand for a setting."""
    if isinstance(value, str | Path):
        path, _, _ = str(value).rpartition(":")  # file.py:function
        return [str(value), (of_file(value) or of_file(path)) if files else ""]
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _value(held, files=files) for name, held in own.items()}
    if isinstance(value, tuple | list):
        return [_value(held, files=files) for held in value]
    return value if value is None or isinstance(value, bool | int | float) else repr(value)
