"""ONNX files and graphs: load, import into graphsurgeon, export without losing anything, save."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError, EncodeError
from onnx_graphsurgeon.logger import G_LOGGER

from onnxprune.errors import UnsupportedModelError
from onnxprune.external import drop_other_data, save_external
from onnxprune.propagation import is_bounded
from onnxprune.replacing import explained, replacing, unnamed
from onnxprune.shape_hints import known_count, known_extents, may_have_hints, write_extents
from onnxprune.soundness import require_sound
from onnxprune.stand_ins import with_stand_ins

# graphsurgeon prints advice and what it raises on stdout, which belongs to the caller's output.
G_LOGGER.severity = G_LOGGER.CRITICAL + 1
logger = logging.getLogger(__name__)

NO_NAMES = frozenset({"", "?", "None"})
"""Names of extents that say nothing: two of them need not be equal."""
HINT_ROUNDS = 16
"""A computed shape may depend on extents behind an earlier one; so many of them in a row."""
DROPPED_ATTRIBUTES = frozenset(
    {
        onnx.AttributeProto.GRAPHS,
        onnx.AttributeProto.SPARSE_TENSOR,
        onnx.AttributeProto.SPARSE_TENSORS,
        onnx.AttributeProto.TENSORS,
        onnx.AttributeProto.TYPE_PROTO,
        onnx.AttributeProto.TYPE_PROTOS,
    }
)
"""Kinds of attributes that graphsurgeon does not import."""
MAX_SHAPE_ELEMENTS = 1 << 10
"""Elements up to which an initializer may be a shape, or indices into one."""
PROTOBUF_LIMIT = 2**31 - 2**20
"""Serialised bytes from which a model has to keep its weights in a file of their own."""


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a model with its external data.

    Raises:
        UnsupportedModelError: the file is missing, is not an ONNX model, or its external data
            cannot be read from the model's own folder.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder, not a model file" if path.is_dir() else "no such file"
        raise UnsupportedModelError(f"{path}: {what}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise UnsupportedModelError(f"{path}: not a readable ONNX model ({error})") from error
    if not model.graph.node and not model.graph.output:
        raise UnsupportedModelError(f"{path}: the file holds no ONNX graph; is it really .onnx?")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except MemoryError:
        raise
    except Exception as error:  # onnx raises what the file system of C++ does, and KeyError, ...
        raise UnsupportedModelError(
            f"{path}: its external data cannot be read ({error}); keep the data file beside it"
        ) from error
    try:
        require_sound(model)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error
    return model


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the model does not fit into one protobuf message."""
    try:
        return int(model.ByteSize()) > PROTOBUF_LIMIT
    except EncodeError:
        return True


def file_bytes(model: onnx.ModelProto) -> int:
    """Bytes that the model takes on disk, its weights included."""
    if not is_large(model):
        return int(model.ByteSize())
    tensors = sum(int(tensor.ByteSize()) for tensor in model.graph.initializer)
    nodes = sum(int(node.ByteSize()) for node in model.graph.node)
    return tensors + nodes + sum(int(value.ByteSize()) for value in model.graph.value_info)


def infer_shapes(model: onnx.ModelProto, *, strict: bool = False) -> onnx.ModelProto:
    """The model with shapes of its intermediate tensors, as far as they can be known.

    Raises:
        UnsupportedModelError: with ``strict``, when an operator contradicts its inputs.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    write_shapes(result, strict=strict)
    return result


def write_shapes(model: onnx.ModelProto, *, strict: bool = False) -> None:
    """As ``infer_shapes``, but into the model itself: a copy of one may take gigabytes."""
    try:
        inferred = _infer(with_stand_ins(without_weights(model)), strict=strict)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        if strict:
            raise UnsupportedModelError(f"shapes cannot be inferred: {error}") from error
        logger.info("shape inference failed, going on without: %s", error)
        return
    for field in ("value_info", "output"):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(getattr(inferred.graph, field))


def _infer(model: onnx.ModelProto, *, strict: bool) -> onnx.ModelProto:
    data = is_bounded(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=data)
    for _ in range(HINT_ROUNDS if may_have_hints(inferred) else 0):
        if not write_extents(inferred, known_extents(import_graph(inferred))):
            break
        known = known_count(inferred)
        inferred = onnx.shape_inference.infer_shapes(inferred, strict_mode=strict, data_prop=data)
        if known_count(inferred) == known:
            break  # nothing followed from what was written
    return inferred


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with inputs in the place of large initializers.

    Their values say nothing about shapes, and inference would serialise them several times.
    """
    copy = onnx.ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    graph = model.graph
    copy.graph.name = graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(copy.graph, field).extend(getattr(graph, field))
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= MAX_SHAPE_ELEMENTS:
            copy.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            copy.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return copy


def import_graph(model: onnx.ModelProto) -> gs.Graph:
    """The model as a graphsurgeon graph, weights loaded lazily.

    Extents without a real name become None: exporters write "?" or -1 for several unequal ones.
    Attributes that are empty lists, whose type would be lost, mean what none do and are left out.
    """
    graph = gs.import_onnx(model)
    for node in graph.nodes:
        for name in [n for n, value in node.attrs.items() if isinstance(value, list) and not value]:
            del node.attrs[name]
    for tensor in graph.tensors().values():
        if not isinstance(tensor, gs.Variable):
            continue
        if tensor.type in ("map_type", "opaque_type", "optional_type"):  # cannot be exported
            tensor.dtype = tensor.shape = None
        if tensor.shape is not None:
            tensor.shape = [_extent(extent) for extent in tensor.shape]
    return graph


def _extent(extent: int | str | None) -> int | str | None:
    negative = isinstance(extent, int) and extent < 0
    return None if negative or extent in NO_NAMES else extent


def export_graph(graph: gs.Graph, like: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as a model with the header, inputs and outputs of ``like``.

    graphsurgeon drops metadata, doc strings, domain and versions and keeps stale shapes; the
    former are restored here and the latter inferred anew.
    """
    model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    for field, _ in model.ListFields():
        if field.name != "graph":
            model.ClearField(field.name)
    model.MergeFrom(_header(like))
    _restore_interface(model, like)
    _restore_node_notes(model, like)
    del model.graph.value_info[:]
    write_shapes(model)
    del model.graph.output[:]  # inference writes out extents that the original leaves open
    model.graph.output.extend(like.graph.output)
    return model


def _header(like: onnx.ModelProto) -> onnx.ModelProto:
    """Everything of a model but its graph and its functions (which are inlined)."""
    header = onnx.ModelProto()
    header.ir_version = like.ir_version
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        if like.HasField(field):
            setattr(header, field, getattr(like, field))
    header.opset_import.extend(like.opset_import)
    header.metadata_props.extend(like.metadata_props)
    return header


def _restore_interface(model: onnx.ModelProto, like: onnx.ModelProto) -> None:
    """Give the graph its original inputs and outputs, and initializers as inputs where asked."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    was_initializer = {tensor.name for tensor in like.graph.initializer}
    real_inputs = [value for value in like.graph.input if value.name not in was_initializer]
    del model.graph.input[:]
    model.graph.input.extend(real_inputs)
    if like.ir_version < 4:  # before IR 4 every initializer is a graph input as well
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            for name, tensor in initializers.items()
        )
    del model.graph.output[:]
    model.graph.output.extend(like.graph.output)
    model.graph.doc_string = like.graph.doc_string
    model.graph.metadata_props.extend(like.graph.metadata_props)
    tensors = {name for node in model.graph.node for name in (*node.input, *node.output)}
    model.graph.quantization_annotation.extend(
        note for note in like.graph.quantization_annotation if note.tensor_name in tensors
    )


def _restore_node_notes(model: onnx.ModelProto, like: onnx.ModelProto) -> None:
    """Bring back the nodes' doc strings, metadata and attributes of kinds that are dropped.

    Nodes are matched by their first output.
    """
    originals = {node.output[0]: node for node in like.graph.node if node.output}
    for node in model.graph.node:
        original = originals.get(node.output[0]) if node.output else None
        if original is None or original.op_type != node.op_type:
            continue
        if original.doc_string:
            node.doc_string = original.doc_string
        node.metadata_props.extend(original.metadata_props)
        node.attribute.extend(a for a in original.attribute if a.type in DROPPED_ATTRIBUTES)


@contextmanager
def pending(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    """Write the model beside ``path`` and move it there if the block ends without an error.

    Yields the path of the temporary file, which is complete and can be validated; whatever
    happens, even if the process is killed, ``path`` holds either what it held before or the whole
    new model. The data file of a model over 2 GB is called by its content and comes first: until
    the model itself is replaced, the old one has its own.

    Raises:
        OnnxPruneError: the folder cannot be written.
    """
    large, data = is_large(model), None
    with replacing(path) if large else unnamed(path) as temporary:
        with explained(path):
            if large:
                data = save_external(model, temporary, path.name)
            else:
                onnx.save(model, temporary)
        yield temporary
    drop_other_data(path, data)
