"""The part of a model that computes given tensors, and what is known of their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import helper

_IR_WITH_FREE_INITIALIZERS = 4  # before, every initializer is a graph input as well


def extract(
    model: onnx.ModelProto,
    outputs: Sequence[onnx.ValueInfoProto],
    nodes: Sequence[onnx.NodeProto] = (),
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Returns the part of the model that computes the outputs, which may need added nodes.

    Args:
        model: sorted as ONNX demands; it is not changed.
        outputs: the only outputs of the result.
        nodes: appended to the model's.
        initializers: what the appended nodes read besides.

    Returns:
        A model with all inputs of the original that are no weights and only the nodes and weights
        that are needed: onnxruntime executes the others too, whether their results are read or
        not.
    """
    needed = {output.name for output in outputs}
    kept = []
    for node in reversed([*model.graph.node, *nodes]):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(read_by(node))
            needed.discard("")  # an optional input left out, and any unused optional output
    result = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    result.graph.name = model.graph.name
    result.graph.node.extend(reversed(kept))
    dropped = {w.name for w in model.graph.initializer} - needed
    result.graph.input.extend(v for v in model.graph.input if v.name not in dropped)
    result.graph.output.extend(outputs)
    weights = [*model.graph.initializer, *initializers]
    result.graph.initializer.extend(w for w in weights if w.name in needed)
    result.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    if model.ir_version < _IR_WITH_FREE_INITIALIZERS:
        result.graph.input.extend(
            helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in initializers
        )
    return result


def exposed(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Returns a copy of the model that outputs the given activations, and only computes those."""
    return extract(model, [onnx.ValueInfoProto(name=name) for name in tensors])


def known_shapes(
    model: onnx.ModelProto, tensors: Iterable[str]
) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the activations, None for a dynamic extent; unknown activations are left out.

    Some exporters write -1 for a dynamic extent.

    Shapes recorded in the model are believed; inference runs only where some are missing.
    """
    wanted = set(tensors)
    shapes = _recorded_shapes(model.graph)
    if not wanted <= shapes.keys():
        shapes = _recorded_shapes(onnx.shape_inference.infer_shapes(model).graph) | shapes
    return {name: shapes[name] for name in wanted & shapes.keys()}


def _recorded_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yields every name in the graph and its subgraphs, repeatedly."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from (weight.name for weight in graph.initializer)
    yield from (weight.values.name for weight in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for subgraph in _subgraphs(node):
            yield from all_names(subgraph)


def read_by(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, and all names in graphs inside it, whether theirs or of its own graph."""
    inner = (name for graph in _subgraphs(node) for name in all_names(graph))
    return {name for name in (*node.input, *inner) if name}


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
