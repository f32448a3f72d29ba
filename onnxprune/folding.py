"""Constant folding: what does not depend on the inputs is computed once, by graphsurgeon.

Around it, what graphsurgeon would get wrong: constants in other forms than a dense tensor, and
arithmetic on shapes (``shape_values``).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.model import export_graph, import_graph, infer_shapes
from onnxprune.shape_values import resolve_shapes

# Folding these would write out what the file holds as a recipe, or freeze a random draw.
KEPT_OPS = frozenset(
    {
        "Bernoulli",
        "Expand",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Range",
        "Tile",
    }
)
FOLDING_ROUNDS = 4
"""Folded extents let more shapes be inferred, and those let more extents be folded."""


def _plain_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model whose Constant nodes all hold a dense tensor.

    graphsurgeon reads ``value_float`` as float64 and drops sparse values.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
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
    for sparse in copy.graph.sparse_initializer:
        copy.graph.initializer.append(_dense(sparse))
    del copy.graph.sparse_initializer[:]
    return copy


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
    model = _plain_constants(model)
    for _ in range(FOLDING_ROUNDS):
        graph = import_graph(infer_shapes(model))
        graph.toposort()
        before = len(graph.nodes)
        _fold_once(graph)
        resolve_shapes(graph)
        _fold_once(graph)
        if len(graph.nodes) == before or not any(node.op == "Shape" for node in graph.nodes):
            break
        model = export_graph(graph, model)
    return graph


def _fold_once(graph: gs.Graph) -> None:
    # Subgraphs stay as they are: their nodes are never pruned and folding may flatten an If.
    # graphsurgeon's folding of shapes may turn float arithmetic on extents into integer
    # arithmetic, which rounds differently.
    graph.fold_constants(
        fold_shapes=False,
        recurse_subgraphs=False,
        flatten_subgraphs=False,
        should_exclude_node=lambda node: node.op in KEPT_OPS,
    )
    graph.cleanup()
