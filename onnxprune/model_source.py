"""What onnxruntime loads: a model, its bytes, or a path."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxprune.scratch import scratch

ModelSource = onnx.ModelProto | bytes | str | Path

# Protobuf refuses messages of 2 GiB; the graph around the weights gets the remaining 64 MiB.
_MAX_WEIGHT_BYTES = 2**31 - 2**26


@contextlib.contextmanager
def loadable(model: ModelSource) -> Iterator[bytes | str]:
    """What onnxruntime loads: bytes, or a path (a temporary one for a model over 2 GB)."""
    if not isinstance(model, onnx.ModelProto):
        yield model if isinstance(model, bytes) else str(model)
    elif _weight_bytes(model) < _MAX_WEIGHT_BYTES:
        yield model.SerializeToString()
    else:
        with scratch() as folder:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)  # saving external data empties the tensors of what it saves
            path = folder / "model.onnx"
            onnx.save_model(copy, path, save_as_external_data=True, location="weights")
            yield str(path)


def proto(model: ModelSource) -> onnx.ModelProto | None:
    """The model itself, if it is one."""
    if isinstance(model, onnx.ModelProto):
        return model
    try:
        return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError):
        return None


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
