"""What a model must be like before any library works on it.

Found is what would take memory, time or the process itself: tensors whose sizes are forged, graphs
in circles, functions that unfold without end. What else is wrong with a model shows when it is
worked on (see ``blame``).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import Message

from onnxprune.errors import UnsupportedModelError
from onnxprune.function_sizes import check_functions

MAX_DENSE = 1 << 27
"""Elements that a sparse tensor may have when its zeros are written out."""
POSITIVE = frozenset({"group", "blocksize", "num_heads"})
"""Attributes that something is divided by."""
_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional
PACKED = {
    kind: count
    for name, count in (("INT4", 2), ("UINT4", 2), ("FLOAT4E2M1", 2), ("INT2", 4), ("UINT2", 4))
    if (kind := getattr(onnx.TensorProto, name, None)) is not None
}
"""Types of which several elements share a byte, and how many do."""


def require_sound(model: onnx.ModelProto) -> None:
    """Refuse a model that no library should be given.

    Args:
        model: the model, its external data read.

    Raises:
        UnsupportedModelError: with the tensor, node or function that is wrong.
    """
    _check_text(model)
    _check_opset(model)
    for graph in _graphs(model):
        _check_tensors(graph)
        _check_values(graph)
        _check_attributes(graph)
    _check_inputs(model)
    _check_interface(model.graph)
    _check_order(model.graph)
    check_functions(model)


def _check_text(message: Message) -> None:
    """Every string is UTF-8: others are parsed, and then are bytes that fail somewhere."""
    for field in message.DESCRIPTOR.fields:
        if field.type == field.TYPE_MESSAGE:
            for inner in _inside(message, field.name):
                _check_text(inner)
        elif field.type == field.TYPE_STRING:
            value = getattr(message, field.name)
            for text in [value] if isinstance(value, (str, bytes)) else value:
                if isinstance(text, bytes):
                    raise UnsupportedModelError(
                        f"{field.full_name.removeprefix('onnx.')} of the model holds bytes that "
                        f"are no text, {text[:40]!r}; export the model again"
                    )


def _inside(message: Message, name: str) -> Iterable[Message]:
    """The messages that a field holds, be it repeated or not."""
    value = getattr(message, name)
    if not isinstance(value, Message):
        found: Iterable[Message] = value
        return found
    return [value] if message.HasField(name) else []


def _check_opset(model: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            continue
        if entry.version < 1:
            raise UnsupportedModelError(
                f"the model uses opset {entry.version}, which there never was; export it again"
            )
        if entry.version > newest:
            raise UnsupportedModelError(
                f"the model uses opset {entry.version}, and the onnx that is installed knows up "
                f"to {newest}: upgrade the package onnx"
            )


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs inside it and inside functions."""
    yield model.graph
    waiting = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    while waiting:
        for attribute in waiting.pop().attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield graph
                waiting += graph.node


def _check_tensors(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _check_tensor(tensor, f"initializer '{tensor.name}'")
    for sparse in graph.sparse_initializer:
        _check_sparse(sparse, f"initializer '{sparse.values.name}'")
    for node in graph.node:
        where = f"a constant of node '{node.name or node.op_type}'"
        for attribute in node.attribute:
            for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
                _check_tensor(tensor, where)
            if attribute.HasField("sparse_tensor"):
                _check_sparse(attribute.sparse_tensor, where)


def _check_values(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type.elem_type
        if kind not in onnx.TensorProto.DataType.values():
            raise UnsupportedModelError(
                f"tensor '{value.name}' has the unknown type {kind}; export the model again"
            )


def _check_attributes(graph: onnx.GraphProto) -> None:
    """Numbers that something is divided by, and numbers of outputs."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in POSITIVE and attribute.i < 1:
                raise UnsupportedModelError(
                    f"attribute {attribute.name} of node '{node.name or node.op_type}' is "
                    f"{attribute.i}; export the model again"
                )
            if attribute.name == "num_outputs" and attribute.i != len(node.output):
                raise UnsupportedModelError(
                    f"node '{node.name or node.op_type}' has {len(node.output)} outputs, but "
                    f"num_outputs {attribute.i}; export the model again"
                )


def _check_inputs(model: onnx.ModelProto) -> None:
    """No node lacks an input that its operator needs: runtimes read what is not there."""
    opset = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=1)
    for graph in _graphs(model):
        for node in graph.node:
            if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
                continue
            try:
                schema = onnx.defs.get_schema(node.op_type, opset)
            except onnx.defs.SchemaError:  # the operator is newer than the model
                continue
            place = next(_left_out(node, schema), None)
            if place is not None:
                raise UnsupportedModelError(
                    f"node '{node.name or node.op_type}' lacks its input {place}, which "
                    f"{node.op_type} needs; export the model again"
                )


def _left_out(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> Iterator[int]:
    """The places of inputs that a node needs and does not have."""
    if schema.inputs:
        for place in range(max(schema.min_input, len(node.input))):
            formal = schema.inputs[min(place, len(schema.inputs) - 1)]
            given = place < len(node.input) and node.input[place]
            if not given and formal.option != _OPTIONAL:
                yield place


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """The bytes of a tensor are those that its shape and type ask for."""
    kind, dims = tensor.data_type, list(tensor.dims)
    if tensor.HasField("segment"):
        raise UnsupportedModelError(f"{where} is a part of a tensor; export the model again")
    if kind == onnx.TensorProto.UNDEFINED or kind not in onnx.TensorProto.DataType.values():
        raise UnsupportedModelError(f"{where} has the unknown type {kind}; export the model again")
    if any(extent < 0 for extent in dims):
        raise UnsupportedModelError(f"{where} has the shape {dims}; export the model again")
    count, held = math.prod(dims), _held(tensor)
    if held is not None and held != count:
        raise UnsupportedModelError(
            f"{where} of the shape {dims} needs {count} values, but the file holds {held}: it is "
            "damaged or was not written to its end"
        )


def _held(tensor: onnx.TensorProto) -> int | None:
    """How many elements a tensor has values for; None where nothing can be said."""
    kind = tensor.data_type
    if tensor.HasField("raw_data"):
        packed = PACKED.get(kind)
        if packed is not None:
            full = -(-math.prod(tensor.dims) // packed) == len(tensor.raw_data)
            return math.prod(tensor.dims) if full else len(tensor.raw_data) * packed
        if kind == onnx.TensorProto.STRING:
            return -1
        size = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
        whole, rest = divmod(len(tensor.raw_data), size)
        return -1 if rest else whole
    if kind in PACKED:
        return None
    field = onnx.helper.tensor_dtype_to_field(kind)
    parts = 2 if kind in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128) else 1
    return len(getattr(tensor, field)) // parts


def _check_sparse(sparse: onnx.SparseTensorProto, where: str) -> None:
    """The places of a sparse tensor lie inside it, and it fits into memory."""
    _check_tensor(sparse.values, where)
    _check_tensor(sparse.indices, where)
    dims, indices = list(sparse.dims), sparse.indices
    if any(extent < 0 for extent in dims) or math.prod(dims) > MAX_DENSE:
        raise UnsupportedModelError(f"{where} is sparse and of the shape {dims}: make it dense")
    count = math.prod(sparse.values.dims)
    flat = list(indices.dims) == [count]
    if indices.data_type != onnx.TensorProto.INT64 or not (
        flat or list(indices.dims) == [count, len(dims)]
    ):
        raise UnsupportedModelError(f"{where} is sparse, and its places do not fit its values")
    places = onnx.numpy_helper.to_array(indices)
    limits = math.prod(dims) if flat else dims
    if count and not ((places >= 0) & (places < limits)).all():
        raise UnsupportedModelError(f"{where} is sparse, and has values outside of {dims}")


def _check_interface(graph: onnx.GraphProto) -> None:
    for kind, values in (("input", graph.input), ("output", graph.output)):
        twice = [name for name, times in Counter(v.name for v in values).items() if times > 1]
        if twice:
            raise UnsupportedModelError(
                f"{kind} '{twice[0]}' of the graph is listed twice; leave one of them out"
            )


def _check_order(graph: onnx.GraphProto) -> None:
    """Every tensor is made once, and none out of itself."""
    made = Counter(name for node in graph.node for name in node.output if name)
    twice = [name for name, times in made.items() if times > 1]
    if twice:
        raise UnsupportedModelError(f"tensor '{twice[0]}' is made by several nodes")
    maker = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    needs = [{maker[n] for n in node.input if n in maker} for node in graph.node]
    readers = defaultdict(list)
    for place, others in enumerate(needs):
        for other in others:
            readers[other].append(place)
    left = [len(others) for others in needs]
    ready = [place for place, count in enumerate(left) if not count]
    done = 0
    while ready:
        done += 1
        for reader in readers[ready.pop()]:
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    if done < len(needs):
        stuck = next(node for node, count in zip(graph.node, left, strict=True) if count)
        name = stuck.name or (stuck.output[0] if stuck.output else stuck.op_type)
        raise UnsupportedModelError(f"the graph goes in a circle at node '{name}'")
