"""Writes models that do not fit into one protobuf message: weights in a file of their own."""

from __future__ import annotations

import math
from pathlib import Path

import onnx

ALIGNMENT = 4096
"""Offsets of weights are multiples of it, so that they can be mapped."""
SMALL = 1 << 10
"""Elements up to which a tensor stays in the model itself."""


def save_external(model: onnx.ModelProto, path: Path, location: str) -> None:
    """Save with the weights in a file of their own, one after another and without a copy of all."""
    file = _without(model, "initializer")
    with path.with_name(location).open("wb") as data:
        for tensor in model.graph.initializer:
            stored = file.graph.initializer.add()
            texts = tensor.data_type == onnx.TensorProto.STRING
            if texts or math.prod(tensor.dims) <= SMALL:
                stored.CopyFrom(tensor)
                continue
            stored.name, stored.data_type = tensor.name, tensor.data_type
            stored.dims.extend(tensor.dims)
            data.write(bytes(-data.tell() % ALIGNMENT))
            values = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
            place = {"location": location, "offset": data.tell(), "length": len(values)}
            stored.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                stored.external_data.add(key=key, value=str(value))
            data.write(values)
    onnx.save(file, path)


def _without(model: onnx.ModelProto, *left_out: str) -> onnx.ModelProto:
    """A copy that lacks some fields of the graph."""
    copy = onnx.ModelProto()
    for whole, part, skipped in (
        (model, copy, ("graph",)),
        (model.graph, copy.graph, left_out),
    ):
        for field, value in whole.ListFields():
            if field.name in skipped:
                continue
            if isinstance(value, (int, str)):
                setattr(part, field.name, value)
            else:
                getattr(part, field.name).extend(value)
    return copy
