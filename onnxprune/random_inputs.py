"""Random inputs that a model accepts, for timing it without samples.

Floats are uniform in [0, 1). Whole numbers that a table is looked up by lie within the table;
other 8-bit ones are any, as pixels are; all others are 1, and truth values are true, as in a mask
that covers nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.arrays import Array, Feed
from onnxprune.calibration import InputSpec
from onnxprune.concrete import concrete
from onnxprune.cost import tensor_shapes
from onnxprune.errors import OnnxPruneError
from onnxprune.inputs import input_specs
from onnxprune.run_shapes import Shapes

PASSING = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose outputs have no other values than their inputs."""

EMBEDDING_TABLES = {0: 2, 1: 4, 8: 3}
"""Inputs of EmbedLayerNormalization: indices -> the table that they are looked up in."""

Sites = Mapping[str, list[tuple[onnx.NodeProto, int]]]
"""Tensor -> the nodes that read it, and as which input."""


def random_feed(model: onnx.ModelProto, shapes: Shapes, seed: int = 0) -> Feed:
    """Inputs of these shapes; the same for models whose inputs are the same.

    Args:
        model: the model.
        shapes: input name -> its shape.
        seed: of the values.

    Raises:
        OnnxPruneError: an input is neither of numbers nor of truth values.
    """
    limits = index_limits(model, shapes)
    return {
        spec.name: _values(spec, shapes[spec.name], limits.get(spec.name), seed)
        for spec in input_specs(model)
    }


def _values(spec: InputSpec, shape: tuple[int, ...], limit: int | None, seed: int) -> Array:
    rng = np.random.default_rng([seed, *spec.name.encode()])
    if spec.dtype.kind == "f":
        return rng.random(shape, np.float32).astype(spec.dtype)
    if spec.dtype.kind in "iu" and limit is not None:
        return rng.integers(0, min(limit, np.iinfo(spec.dtype).max), shape).astype(spec.dtype)
    if spec.dtype.kind in "iu" and spec.dtype.itemsize == 1:
        info = np.iinfo(spec.dtype)
        return rng.integers(info.min, info.max, shape, spec.dtype, endpoint=True)
    if spec.dtype.kind in "iub":
        return np.ones(shape, spec.dtype)
    raise OnnxPruneError(
        f"input '{spec.name}' is of type {spec.dtype}, which random values are not made of; give "
        "samples with --data"
    )


def index_limits(model: onnx.ModelProto, shapes: Shapes) -> dict[str, int]:
    """For inputs that tables are looked up by: how many rows the smallest of these has.

    Args:
        model: the model.
        shapes: input name -> its shape.
    """
    whole = [spec.name for spec in input_specs(model) if spec.dtype.kind in "iu"]
    if not whole:
        return {}
    known = tensor_shapes(concrete(model, shapes))
    values = {
        tensor.name: int(numpy_helper.to_array(tensor).reshape(-1)[0])
        for tensor in model.graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        and list(tensor.dims) in ([], [1])
    }
    sites = _sites(model.graph)
    found = {}
    for name in whole:
        limits = [_limit(*site, known, values) for site in _readers(name, sites)]
        rows = [limit for limit in limits if limit]
        if rows:
            found[name] = min(rows)
    return found


def _sites(graph: onnx.GraphProto) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    sites = defaultdict(list)
    for node in _nodes(graph):
        for place, name in enumerate(node.input):
            sites[name].append((node, place))
    return sites


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of inner graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _readers(name: str, sites: Sites) -> Iterator[tuple[onnx.NodeProto, int]]:
    """What reads the values of a tensor, moved about or not."""
    waiting, seen = [name], {name}
    while waiting:
        for node, place in sites.get(waiting.pop(), ()):
            yield node, place
            if node.op_type in PASSING and (place == 0 or node.op_type == "Concat"):
                waiting += set(node.output) - seen
                seen |= set(node.output)


def _limit(
    node: onnx.NodeProto,
    place: int,
    shapes: Mapping[str, tuple[int, ...]],
    values: Mapping[str, int],
) -> int | None:
    """How many rows there are to choose from where a node reads indices; None if it does not."""
    if node.op_type == "OneHot" and place == 0:
        return values.get(node.input[1])
    axis, table = 0, None
    if node.op_type in ("Gather", "GatherElements", "GatherBlockQuantized") and place == 1:
        names = ("axis", "gather_axis")
        axis = next((a.i for a in node.attribute if a.name in names), 0)
        table = node.input[0]
    elif node.op_type == "EmbedLayerNormalization" and place in EMBEDDING_TABLES:
        table = node.input[EMBEDDING_TABLES[place]]
    shape = shapes.get(table or "")
    return shape[axis] if shape and -len(shape) <= axis < len(shape) else None
