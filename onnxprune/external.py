"""Writes models that do not fit into one protobuf message: weights in a file of their own."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
from pathlib import Path

import onnx

ALIGNMENT = 4096
"""Offsets of weights are multiples of it, so that they can be mapped."""
SMALL = 1 << 10
"""Elements up to which a tensor stays in the model itself."""
DIGITS = 16
"""Of the digest of the weights, in the name of their file."""


def save_external(model: onnx.ModelProto, path: Path, name: str) -> str:
    """Save with the weights in a file of their own, one after another and without a copy of all.

    Args:
        model: the model.
        path: where it is written; the weights lie beside it.
        name: what the model will be called.

    Returns:
        The name of the file of weights: NAME.DIGEST.data, so that other weights never take the
        place of those that a model with the same name refers to.
    """
    file = _without(model, "initializer")
    unfinished, digest = path.with_name("weights"), hashlib.sha256()
    places: list[tuple[onnx.TensorProto, int, int]] = []
    with unfinished.open("wb") as data:
        for tensor in model.graph.initializer:
            stored = file.graph.initializer.add()
            texts = tensor.data_type == onnx.TensorProto.STRING
            if texts or math.prod(tensor.dims) <= SMALL:
                stored.CopyFrom(tensor)
                continue
            stored.name, stored.data_type = tensor.name, tensor.data_type
            stored.dims.extend(tensor.dims)
            padding = bytes(-data.tell() % ALIGNMENT)
            data.write(padding)
            digest.update(padding)
            values = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
            places.append((stored, data.tell(), len(values)))
            data.write(values)
            digest.update(values)
    location = f"{name}.{digest.hexdigest()[:DIGITS]}.data"
    for stored, offset, length in places:
        stored.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            stored.external_data.add(key=key, value=str(value))
    os.replace(unfinished, path.with_name(location))
    onnx.save(file, path)
    return location


def drop_other_data(path: Path, location: str | None) -> None:
    """Remove files of weights that models had which were at this path before.

    Args:
        path: where a complete model is.
        location: the name of its file of weights; None for a model without one.
    """
    form = re.compile(re.escape(path.name) + rf"\.[0-9a-f]{{{DIGITS}}}\.data")
    for name in os.listdir(path.absolute().parent):
        if name != location and form.fullmatch(name):
            with contextlib.suppress(OSError):  # of no harm but its size
                path.with_name(name).unlink()


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
