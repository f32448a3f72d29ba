"""The graph half of statistics: nodes appended to a model that output Grams of its activations.

Only the small matrices leave the runtime. Of an activation the probe reads the sampled positions
*before* it builds patches (the patches of all positions of a 3 x 3 window are nine activations):

    activation -> float32, channels last, zero-padded, spatial axes flattened  (samples, places, C)
               -> Gather of points * taps places                       (samples * points, taps * C)
               -> constant 1 appended, split into parts                (parts, rows, features + 1)
               -> F^T F                                  (parts, features + 1, features + 1)

Channels last makes every gathered piece contiguous; the features therefore are ordered (tap,
channel), and whoever sums the outputs reorders the sum once (``GramRequest.from_tap_major``).

Only operators whose form is the same in every opset from 7 on are used; Pad, which is not, is
written in the form of the model's opset. The model's opset and IR version stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.arrays import Array
from onnxprune.extract import all_names, extract
from onnxprune.linear_map import Window
from onnxprune.row_layout import RowLayout
from onnxprune.sampling import GramRequest

_OPSET_WITH_PADS_AS_INPUT = 11


@dataclass(frozen=True)
class Probe:
    """A model that outputs Grams, or the rows they are made of, and nothing else.

    Features are ordered (tap, channel); Grams have the constant last, rows have none.

    Attributes:
        model: takes the original's inputs and ``uniforms``.
        outputs: for each request the name of its Gram, shape (parts, features + 1, features + 1),
            or of its rows, shape (parts, rows, features).
        uniforms: name of the input that takes the shard's numbers (``sampling.draw_uniforms``).
        uniform_count: how many numbers it takes.
        picks: for each request that takes the rows that a mask counts, the name of the input for
            their numbers; None for the others.
    """

    model: onnx.ModelProto
    outputs: tuple[str, ...]
    uniforms: str
    uniform_count: int
    picks: tuple[str | None, ...] = ()


def probe(
    model: onnx.ModelProto, requests: Sequence[GramRequest], as_rows: Collection[int] = ()
) -> Probe:
    """Returns a copy of the model that computes only what the requests need.

    Args:
        model: the model; it is not changed.
        requests: what to collect, at least one.
        as_rows: places of the requests that get rows rather than Grams.
    """
    writer = _Writer(model)
    uniforms = writer.name("uniforms")
    alike: dict[tuple[RowLayout, int], str] = {}
    picks: list[str | None] = []
    outputs, types = [], []
    for place, request in enumerate(requests):
        picks.append(_picks(writer, request, alike))
        output = _rows(writer, request, uniforms, picks[-1])
        shape = [request.spec.parts, None, request.features]
        if place not in as_rows:
            output = _gram(writer, output)
            shape[1:] = [request.features + 1] * 2
        outputs.append(output)
        types.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
    probed = extract(model, types, writer.nodes, writer.initializers)
    count = max(request.points for request in requests)
    entry = helper.make_tensor_value_info(uniforms, TensorProto.FLOAT, [count])
    probed.graph.input.append(entry)
    for name in alike.values():
        rows_taken = helper.make_tensor_value_info(name, TensorProto.INT64, [None])
        probed.graph.input.append(rows_taken)
    return Probe(probed, tuple(outputs), uniforms, count, tuple(picks))


def _picks(
    writer: _Writer, request: GramRequest, alike: dict[tuple[RowLayout, int], str]
) -> str | None:
    """The input that says which rows are taken, the same for requests that take the same."""
    if request.layout is None:
        return None
    key = request.layout, request.points
    return alike.setdefault(key, writer.name(f"rows_{len(alike)}"))


class _Writer:
    """Makes nodes with names the model does not use."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self._prefix = "onnxprune_probe"
        used = set(all_names(model.graph))
        while any(name.startswith(self._prefix) for name in used):
            self._prefix += "_"

    def name(self, purpose: str) -> str:
        return f"{self._prefix}/{purpose}"

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node of one output and returns the output's name."""
        output = self.name(f"{op}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def constant(self, values: Array) -> str:
        """Adds an initializer: Constant nodes hold no integers before opset 9."""
        name = self.name(f"constant_{len(self.initializers)}")
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def reshape(self, tensor: str, *shape: int) -> str:
        """Reshape; 0 copies an extent and -1 is what remains."""
        return self.add("Reshape", tensor, self.ints(*shape))

    def pad(self, tensor: str, begin: Sequence[int], end: Sequence[int], value: float) -> str:
        pads = [*begin, *end]
        if not any(pads):
            return tensor
        if self.opset < _OPSET_WITH_PADS_AS_INPUT:
            return self.add("Pad", tensor, pads=pads, value=value)
        return self.add(
            "Pad", tensor, self.ints(*pads), self.constant(np.array(value, dtype=np.float32))
        )

    def extent(self, tensor: str, axis: int) -> str:
        """Length of an axis, an int64 tensor of shape (1,); onnxruntime folds the static ones."""
        return self.add("Gather", self.add("Shape", tensor), self.ints(axis))


def _rows(writer: _Writer, request: GramRequest, uniforms: str, picks: str | None) -> str:
    """The rows of one request, shape (parts, rows, features)."""
    spec = request.spec
    activation = writer.add("Cast", spec.tensor, to=TensorProto.FLOAT)
    if spec.window is None:
        values = _channel_values(writer, request, activation, uniforms, picks)
    else:
        values = _patch_values(writer, spec.window, request, activation, uniforms, picks)
    if spec.parts > 1:
        within = request.channels // spec.parts
        values = writer.reshape(values, -1, request.taps, spec.parts, within)
        values = writer.add("Transpose", values, perm=[2, 0, 1, 3])
    return writer.reshape(values, spec.parts, -1, request.features)


def _gram(writer: _Writer, rows: str) -> str:
    """F^T F of the rows and a constant 1; onnxruntime fuses the transposition into the product."""
    rows = writer.pad(rows, [0, 0, 0], [0, 0, 1], 1.0)
    transposed = writer.add("Transpose", rows, perm=[0, 2, 1])
    return writer.add("MatMul", transposed, rows)


def _channel_values(
    writer: _Writer, request: GramRequest, values: str, uniforms: str, picks: str | None
) -> str:
    """Channel values at the sampled positions, shape (samples, points, channels).

    Those of picked rows have the shape (rows, channels).
    """
    spec = request.spec
    last = [axis for axis in (spec.apart, spec.axis) if axis is not None]
    order = [*spec.row_axes, *last]
    if order != sorted(order):
        values = writer.add("Transpose", values, perm=order)
    leading = (0, -1) if spec.rank > len(last) + 1 else (-1, 1)
    values = writer.reshape(values, *leading, request.extent)
    if spec.fold > 1:
        if spec.fold_major:
            values = writer.reshape(values, 0, -1, request.channels, spec.fold)
            values = writer.add("Transpose", values, perm=[0, 1, 3, 2])
        values = writer.reshape(values, 0, -1, request.channels)
    if picks is not None:
        return writer.add("Gather", writer.reshape(values, -1, request.channels), picks, axis=0)
    places = _positions(writer, request.points, uniforms, writer.extent(values, 1))
    return writer.add("Gather", values, places, axis=1)


def _patch_values(
    writer: _Writer,
    window: Window,
    request: GramRequest,
    values: str,
    uniforms: str,
    picks: str | None,
) -> str:
    """Patches at the sampled positions, shape (samples, points * taps, channels).

    Those of picked rows have the shape (rows * taps, channels).
    """
    spatial = len(window.kernel)
    values = writer.add("Transpose", values, perm=[0, *range(2, 2 + spatial), 1])
    values = writer.pad(values, [0, *window.pads_begin, 0], [0, *window.pads_end, 0], 0.0)
    sizes = [writer.extent(values, axis) for axis in range(1, 1 + spatial)]
    extents = [_window_extent(writer, window, axis, size) for axis, size in enumerate(sizes)]
    total = _product(writer, extents)
    if picks is None:
        flat = _positions(writer, request.points, uniforms, total)
        places = writer.reshape(_patch_places(writer, window, flat, extents, sizes), -1)
        values = writer.reshape(values, 0, -1, request.channels)
        return writer.add("Gather", values, places, axis=1)
    sample = writer.add("Div", picks, total)
    flat = writer.add("Sub", picks, writer.add("Mul", sample, total))
    first = writer.add("Mul", sample, _product(writer, sizes))
    places = _patch_places(writer, window, flat, extents, sizes)
    places = writer.add("Add", places, writer.reshape(first, -1, 1))
    values = writer.reshape(values, -1, request.channels)
    return writer.add("Gather", values, writer.reshape(places, -1), axis=0)


def _product(writer: _Writer, extents: Sequence[str]) -> str:
    total = extents[0]
    for extent in extents[1:]:
        total = writer.add("Mul", total, extent)
    return total


def _patch_places(
    writer: _Writer, window: Window, flat: str, extents: Sequence[str], sizes: Sequence[str]
) -> str:
    """Flat places of every tap of the windows with these numbers, shape (windows, taps)."""
    coordinates = []  # of every window, last axis first
    for extent in reversed(extents):
        quotient = writer.add("Div", flat, extent)
        coordinates.append(writer.add("Sub", flat, writer.add("Mul", quotient, extent)))
        flat = quotient
    taps = np.indices(window.kernel).reshape(len(window.kernel), 1, -1)
    places = ""
    for axis, coordinate in enumerate(reversed(coordinates)):
        start = writer.add("Mul", coordinate, writer.ints(window.strides[axis]))
        offsets = writer.constant(taps[axis] * window.dilations[axis])
        place = writer.add("Add", writer.reshape(start, -1, 1), offsets)  # (points, taps)
        if places:
            place = writer.add("Add", writer.add("Mul", places, sizes[axis]), place)
        places = place
    return places


def _window_extent(writer: _Writer, window: Window, axis: int, size: str) -> str:
    """Positions of the window along one padded axis; see ``sampling.window_extents``."""
    reach = window.dilations[axis] * (window.kernel[axis] - 1) + 1
    room = writer.add("Sub", size, writer.ints(reach))
    steps = writer.add("Div", room, writer.ints(window.strides[axis]))
    return writer.add("Add", steps, writer.ints(1))


def _positions(writer: _Writer, points: int, uniforms: str, total: str) -> str:
    """Sampled positions, shape (points,); the steps and roundings of ``sampling.positions``."""
    numbers = writer.add("Gather", uniforms, writer.constant(np.arange(points)))
    numbers = writer.add("Cast", numbers, to=TensorProto.DOUBLE)
    places = writer.add("Add", writer.constant(np.arange(points, dtype=np.float64)), numbers)
    places = writer.add("Mul", places, writer.add("Cast", total, to=TensorProto.DOUBLE))
    places = writer.add("Div", places, writer.constant(np.array([points], dtype=np.float64)))
    return writer.add("Cast", places, to=TensorProto.INT64)
