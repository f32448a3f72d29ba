"""Constant folding: what does not depend on the inputs is computed once, by graphsurgeon.

Around it, what graphsurgeon would get wrong: constants in other forms than a dense tensor, and
arithmetic on shapes (``shape_writing``).
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.concrete import name_batches
from onnxprune.model import export_graph, import_graph, write_shapes
from onnxprune.shape_writing import resolve_shapes

# Folding these would write out what the file holds as a recipe, or freeze a random draw.
RECIPES = frozenset({"Expand", "Range", "Tile"})
KEPT_OPS = RECIPES | {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
FEW_INDICES = 1 << 16
"""Integers up to which a recipe is written out, so that what is done with them can be folded."""
LARGEST = 1 << 26
"""Bytes up to which a constant is written out though what it is made of is far smaller."""
GROWTH = 4
"""How many times larger than that it may be beyond: casts and other rearrangements are not."""
AWAITED = RECIPES | {"Shape"}
"""What may be folded once more shapes are inferred."""
FOLDING_ROUNDS = 16
"""Folded extents let more shapes be inferred, and those let more extents be folded."""


def _is_kept(node: gs.Node) -> bool:
    """Whether a node stays though its inputs are constant; few indices are written out."""
    if node.op not in KEPT_OPS:
        return _explodes(node)
    y = node.outputs[0]
    known = y.shape is not None and all(isinstance(extent, int) for extent in y.shape)
    few = known and math.prod(y.shape) <= FEW_INDICES and y.dtype in (np.int32, np.int64)
    return node.op not in RECIPES or not few


def _explodes(node: gs.Node) -> bool:
    """Whether a node makes a large constant of a small one, as a ConstantOfShape may."""
    made = sum(_bytes(y) for y in node.outputs)
    return made > LARGEST and made > GROWTH * sum(_bytes(x) for x in node.inputs)


def _bytes(tensor: gs.Tensor) -> int:
    """Bytes of a tensor, as far as its shape is known."""
    if tensor.shape is None or not all(isinstance(extent, int) for extent in tensor.shape):
        return 0
    size = np.dtype(tensor.dtype).itemsize if isinstance(tensor.dtype, type | np.dtype) else 1
    return size * int(math.prod(tensor.shape))


def _plain_constants(model: onnx.ModelProto) -> None:
    """Give all Constant nodes of the model a dense tensor.

    graphsurgeon reads ``value_float`` as float64 and drops sparse values.
    """
    for node in model.graph.node:
        if node.op_type != "Constant" or len(node.attribute) != 1:
            continue
        attribute = node.attribute[0]
        values = onnx.helper.get_attribute_value(attribute)
        if attribute.name in ("value_float", "value_floats"):
            tensor = onnx.numpy_helper.from_array(np.array(values, np.float32))
        elif attribute.name in ("value_int", "value_ints"):
            tensor = onnx.numpy_helper.from_array(np.array(values, np.int64))
        elif attribute.name == "sparse_value":
            tensor = _dense(values)
        else:
            continue
        node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", tensor))
    for sparse in model.graph.sparse_initializer:
        model.graph.initializer.append(_dense(sparse))
    del model.graph.sparse_initializer[:]


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Indices are flat, or one row of coordinates per value."""
    values = onnx.numpy_helper.to_array(sparse.values)
    places = onnx.numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return onnx.numpy_helper.from_array(dense, sparse.values.name)


def fold_constants(model: onnx.ModelProto) -> gs.Graph:
    """The model's graph, topologically sorted, without arithmetic on constants."""
    working = onnx.ModelProto()
    working.CopyFrom(model)
    _plain_constants(working)
    write_shapes(working)
    for _ in range(FOLDING_ROUNDS):
        graph = import_graph(working)
        name_batches(graph, working)
        graph.toposort()
        before = len(graph.nodes)
        _fold_once(graph)
        resolved = resolve_shapes(graph)
        _fold_once(graph)
        folded = len(graph.nodes) < before and any(node.op in AWAITED for node in graph.nodes)
        if not resolved and not folded:
            break
        working = export_graph(graph, working)
    return graph


def _fold_once(graph: gs.Graph) -> None:
    # Subgraphs stay as they are: their nodes are never pruned and folding may flatten an If.
    # graphsurgeon's folding of shapes may turn float arithmetic on extents into integer
    # arithmetic, which rounds differently.
    graph.fold_constants(
        fold_shapes=False,
        recurse_subgraphs=False,
        flatten_subgraphs=False,
        should_exclude_node=_is_kept,
    )
    graph.cleanup()
