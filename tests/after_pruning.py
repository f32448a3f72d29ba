"""What people do to a pruned model before they deploy it, each tool as its manual calls it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxprune.arrays import Feed

PER_CHANNEL_OPSET = 13
"""DequantizeLinear has scales per channel from here on."""


class Feeds(CalibrationDataReader):
    """Batches as the quantiser asks for them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def opset(path: Path) -> int:
    (version,) = (o.version for o in onnx.load(path).opset_import if o.domain in ("", "ai.onnx"))
    return int(version)


def static(form: QuantFormat) -> Callable[[Path, Path, Sequence[Feed]], None]:
    def quantise(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
        ready = target.with_suffix(".ready.onnx")
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        per_channel = opset(source) >= PER_CHANNEL_OPSET
        quantize_static(ready, target, Feeds(feeds), quant_format=form, per_channel=per_channel)

    return quantise


def dynamic(source: Path, target: Path, _: Sequence[Feed]) -> None:
    quantize_dynamic(source, target, per_channel=True)


def slim(source: Path, target: Path, _: Sequence[Feed]) -> None:
    onnxslim = pytest.importorskip("onnxslim")

    onnx.save(onnxslim.slim(str(source)), target)


def simplified(source: Path, target: Path, _: Sequence[Feed]) -> None:
    onnxsim = pytest.importorskip("onnxsim")

    with contextlib.redirect_stdout(io.StringIO()):
        made, same = onnxsim.simplify(onnx.load(source))
    assert same
    onnx.save(made, target)


def half(source: Path, target: Path, _: Sequence[Feed]) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def optimised(source: Path, target: Path, _: Sequence[Feed]) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Tool:
    """What is done to a file, and how far the outputs may move by it.

    Attributes:
        run: makes the second file of the first; feeds are what it may calibrate with.
        tolerance: relative error that is expected of it.
        smaller: at most what part of the bytes is left of a network that is mostly weights.
    """

    run: Callable[[Path, Path, Sequence[Feed]], None]
    tolerance: float
    smaller: float = 1.1


TOOLS = {
    "quantize_static, QDQ": Tool(static(QuantFormat.QDQ), 0.15, 0.6),
    "quantize_static, QOperator": Tool(static(QuantFormat.QOperator), 0.15, 0.6),
    "quantize_dynamic": Tool(dynamic, 0.1, 0.6),
    "onnxslim": Tool(slim, 1e-5),
    "onnxsim": Tool(simplified, 1e-5),
    "float16": Tool(half, 0.01, 0.6),
    "onnxruntime, offline": Tool(optimised, 1e-5),
}
QUANTISERS = [name for name in TOOLS if name.startswith("quantize")]


VISIBLE = 1e-3
"""Outputs smaller than so much of the largest one are not compared."""


def relative_error(reference: Sequence[np.ndarray], changed: Sequence[np.ndarray]) -> float:
    """The largest over the outputs; of those that are next to nothing, eight bits keep nothing."""
    assert [a.shape for a in reference] == [b.shape for b in changed]
    wide = [
        (a.astype(np.float64), b.astype(np.float64))
        for a, b in zip(reference, changed, strict=True)
    ]
    sizes = [float(np.sqrt(np.mean(a**2))) for a, _ in wide]
    shown = [pair for pair, size in zip(wide, sizes, strict=True) if size >= VISIBLE * max(sizes)]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in shown)
