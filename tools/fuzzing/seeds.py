"""What the inputs are mutations of."""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from micro_models import MICRO_MODELS  # noqa: E402
from onnx import parser  # noqa: E402

WITH_FUNCTION = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
  c = Conv <pads=[1,1,1,1]> (x, w1)
  h = own.act (c)
  y = Conv <pads=[1,1,1,1]> (h, w2)
}
<domain: "own", opset_import: ["": 17]>
act (a) => (b) { t = Relu (a) b = Mul (t, t) }
"""
WITH_SUBGRAPHS = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,8,8] x, bool flag) => (float[N,4,8,8] y) {
  c = Conv <pads=[1,1,1,1]> (x, w1)
  h = If (flag) <
    then_branch = one () => (float[N,8,8,8] t) { t = Relu (c) },
    else_branch = two () => (float[N,8,8,8] e) { e = Neg (c) }
  >
  y = Conv <pads=[1,1,1,1]> (h, w2)
}
"""


def _with_weights(text: str) -> onnx.ModelProto:
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (4, 8, 3, 3))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def external_model() -> onnx.ModelProto:
    """A model with its weights in ``weights.bin``, of 2 kB."""
    model = _with_weights(WITH_FUNCTION)
    offset = 0
    for tensor in model.graph.initializer:
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        offset += length
    return model


@cache
def models() -> tuple[onnx.ModelProto, ...]:
    """Micro models of every operator with a rule, and some of other shapes."""
    own = [_with_weights(WITH_FUNCTION), _with_weights(WITH_SUBGRAPHS)]
    return (*(build() for build in MICRO_MODELS.values()), *own * 8)


@cache
def feedable() -> onnx.ModelProto:
    """The model that whole runs are made with: convolutions, a residual sum, a classifier."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,3,8,8] x) => (float[N,5] y) {
      a = Conv <pads=[1,1,1,1]> (x, w1, b1)
      r = Relu (a)
      b = Conv <pads=[1,1,1,1]> (r, w2, b2)
      s = Relu (b)
      c = Conv <pads=[1,1,1,1]> (s, w3, b1)
      t = Add (r, c)
      p = GlobalAveragePool (t)
      f = Flatten (p)
      y = Gemm (f, w4, b4)
    }"""
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "w3": (8, 12, 3, 3), "w4": (8, 5)}
    for name, shape in (shapes | {"b1": (8,), "b2": (12,), "b4": (5,)}).items():
        values = (rng.standard_normal(shape) / 3).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for place, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{place}"
    return model


@cache
def samples() -> np.ndarray:
    """Samples for ``feedable``, shape (24, 3, 8, 8)."""
    return np.random.default_rng(1).standard_normal((24, 3, 8, 8)).astype(np.float32)


@cache
def images() -> dict[str, bytes]:
    """A small image in every format that is read."""
    pixels = np.random.default_rng(2).integers(0, 255, (9, 9, 3), np.uint8)
    made = {}
    for kind in ("png", "jpeg", "bmp", "webp"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        made[kind] = stream.getvalue()
    for mode in ("P", "L", "LA", "1", "I;16"):
        stream = io.BytesIO()
        Image.fromarray(pixels).convert("L").convert(mode).save(stream, "png")
        made[mode] = stream.getvalue()
    return made


@cache
def members() -> dict[str, dict[str, bytes]]:
    """Two samples of a model of images as shards hold them: as arrays, and as images."""
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 8, 8), np.float32))
    array, label = stream.getvalue(), {"a.txt": b"1", "b/c.cls": b"2"}
    return {
        "arrays": {"a.npy": array, "b/c.npy": array, **label},
        "images": {"a.png": images()["png"], "b/c.jpg": images()["jpeg"], **label},
    }


@cache
def tables() -> dict[str, bytes]:
    """Rows for a model with two inputs in Parquet and Arrow files, by suffix and what they are."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = {"x": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], "y": [0, 1, 2]}
    kinds = pa.schema([("x", pa.list_(pa.float32())), ("y", pa.int64())])
    fixed = pa.schema([("x", pa.list_(pa.float32(), 2)), ("y", pa.int64())])
    made = {}
    for name, schema in (("lists", kinds), ("fixed", fixed)):
        table = pa.table(rows, schema=schema)
        for codec in ("none", "snappy", "zstd"):
            stream = io.BytesIO()
            parquet.write_table(table, stream, compression=codec)
            made[f"parquet {name} {codec}"] = stream.getvalue()
        for kind, writer in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
            stream = io.BytesIO()
            with writer(stream, schema) as out:
                out.write_table(table)
            made[f"arrow {name} {kind}"] = stream.getvalue()
    return made
