"""Random inputs for models nobody described: images, ids, lengths, states, flags.

Extents a model leaves open: 1 on the first axis, one of ``SIZES`` on the others; equal names get
equal extents. Floating-point inputs are standard normal, truth values fair coins; integers lie
between 1 and one of ``HIGHEST``, so that they can be ids, lengths or counts. What a model accepts
is not declared, so the choices are tried in turn until it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx

from onnxprune.arrays import Array
from onnxprune.errors import OnnxPruneError
from onnxprune.model import NO_NAMES
from onnxprune.runtime import Session

SIZES = (64, 224, 512, 16, 1)
HIGHEST = (100, 3, 1)

Shapes = dict[str, tuple[int, ...]]
Feed = dict[str, Array]


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller feeds: all but initializers."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def input_shapes(model: onnx.ModelProto, size: int = SIZES[0], batch: int = 1) -> Shapes:
    """A shape for every input that is a tensor."""
    named: dict[str, int] = {}
    shapes = {}
    for value in graph_inputs(model):
        extents = []
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            default = batch if axis == 0 else size
            if dim.dim_value > 0:
                extents.append(int(dim.dim_value))
            elif dim.dim_param in NO_NAMES:
                extents.append(default)
            else:
                extents.append(named.setdefault(dim.dim_param, default))
        shapes[value.name] = tuple(extents)
    return shapes


def random_feed(
    model: onnx.ModelProto, shapes: Shapes, highest: int, rng: np.random.Generator
) -> Feed:
    """One array for every input.

    Raises:
        OnnxPruneError: an input is no tensor of numbers.
    """
    return {
        value.name: _random(value, shapes[value.name], highest, rng)
        for value in graph_inputs(model)
    }


def runnable_feeds(model: onnx.ModelProto, seed: int = 0, batch: int = 1) -> Iterator[Feed]:
    """The random inputs that a model runs on, the most telling first.

    Raises:
        OnnxPruneError: it runs on none that were tried.
    """
    session = Session(model, threads=1)
    refusal = None
    ran = False
    for size, highest in _choices(model):
        shapes = input_shapes(model, size, batch)
        feed = random_feed(model, shapes, highest, np.random.default_rng(seed))
        try:
            session.run(feed)
        except OnnxPruneError as error:
            refusal = refusal or error
        else:
            ran = True
            yield feed
    if not ran:
        raise OnnxPruneError(f"it runs on no random input that was tried: {refusal}")


def last_digit(feed: Feed, seed: int = 0) -> Feed:
    """The feed with the last binary digit of every floating-point number changed or not."""
    rng = np.random.default_rng(seed)
    return {
        name: np.nextafter(array, rng.choice([-np.inf, np.inf], array.shape).astype(array.dtype))
        if array.dtype.kind == "f"
        else array
        for name, array in feed.items()
    }


def _choices(model: onnx.ModelProto) -> Iterator[tuple[int, int]]:
    """Pairs of an open extent and a largest integer that make a difference to this model."""
    inputs = graph_inputs(model)
    is_open = any(d.dim_value <= 0 for v in inputs for d in v.type.tensor_type.shape.dim[1:])
    whole = any(_dtype(v).kind in "iu" for v in inputs)
    yield from itertools.product(SIZES if is_open else SIZES[:1], HIGHEST if whole else (1,))


def _dtype(value: onnx.ValueInfoProto) -> np.dtype:
    if not value.type.HasField("tensor_type"):
        raise OnnxPruneError(f"input '{value.name}' is not a tensor")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    if dtype.kind not in "fiub":
        raise OnnxPruneError(f"input '{value.name}' is not a tensor of numbers")
    return dtype


def _random(
    value: onnx.ValueInfoProto, shape: tuple[int, ...], highest: int, rng: np.random.Generator
) -> Array:
    dtype = _dtype(value)
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    return np.asarray(rng.integers(1, highest + 1, shape)).astype(dtype)
