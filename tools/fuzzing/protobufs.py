"""Mutations of models: of any field by its descriptor, and of what a graph hangs together by."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper

from fuzzing.wire import FLOATS, TEXTS, integer

DEPTH = 8
"""How deep a random walk goes before it changes something."""


def mutated(model: onnx.ModelProto, rng: Random, other: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with one to four mutations.

    Args:
        model: the model.
        rng: of all choices.
        other: another model, to take parts from.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if rng.random() < 0.5:
            rng.choice(STRUCTURAL)(copy, rng)
        else:
            change_field(copy, rng, other)
    return copy


def change_field(message: Message, rng: Random, other: onnx.ModelProto) -> None:
    """Walk down to some field and change it."""
    for _ in range(DEPTH):
        fields = [f for f, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
        field = rng.choice(fields if rng.random() < 0.9 else list(message.DESCRIPTOR.fields))
        if field.message_type is None:
            _change_value(message, field, rng)
            return
        if field.is_repeated:
            items = getattr(message, field.name)
            if not items or rng.random() < 0.15:
                _change_items(message, field, rng, other)
                return
            message = rng.choice(items)
        elif rng.random() < 0.05:
            message.ClearField(field.name)
            return
        else:
            message = getattr(message, field.name)


def _change_items(
    message: Message, field: FieldDescriptor, rng: Random, other: onnx.ModelProto
) -> None:
    """Add, drop, double or reorder messages of a repeated field."""
    items = getattr(message, field.name)
    what = rng.randrange(5)
    if what == 0 or not items:
        foreign = getattr(other.graph, field.name, None)
        if foreign and message.DESCRIPTOR.name == "GraphProto":
            items.add().CopyFrom(rng.choice(foreign))
        else:
            items.add()
    elif what == 1:
        del items[rng.randrange(len(items))]
    elif what == 2:
        items.add().CopyFrom(rng.choice(items))
    elif what == 3:
        kept = list(items)
        rng.shuffle(kept)
        copies = [type(item).FromString(item.SerializePartialToString()) for item in kept]
        message.ClearField(field.name)
        getattr(message, field.name).extend(copies)
    else:
        message.ClearField(field.name)


def _change_value(message: Message, field: FieldDescriptor, rng: Random) -> None:
    if rng.random() < 0.1:
        message.ClearField(field.name)
        return
    try:
        if not field.is_repeated:
            setattr(message, field.name, _value(field, getattr(message, field.name), rng))
            return
        values = getattr(message, field.name)
        if not values or rng.random() < 0.2:
            values.append(_value(field, values[0] if values else None, rng))
        elif rng.random() < 0.2:
            del values[rng.randrange(len(values))]
        else:
            place = rng.randrange(len(values))
            values[place] = _value(field, values[place], rng)
    except (ValueError, TypeError):  # out of the field's range
        message.ClearField(field.name)


def _value(field: FieldDescriptor, old: object, rng: Random) -> object:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        held = old if isinstance(old, bytes) else b""
        return rng.choice((b"", held[:-1], held + b"\0", held * 2, held[: len(held) // 2], b"\xff"))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(TEXTS)
    small = rng.randrange(30)  # types of elements, opsets, small extents
    held = old if isinstance(old, int) else 0
    return rng.choice((small, integer(rng, held)))


# --- what a graph hangs together by -------------------------------------------------------------


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in graph.node for name in (*node.input, *node.output)]
    return made + [t.name for t in graph.initializer] + [v.name for v in graph.input] + ["", "no"]


def _rewire(model: onnx.ModelProto, rng: Random) -> None:
    """An input of a node is another tensor: an unknown one, its own output, or a later one."""
    nodes = [node for node in model.graph.node if node.input]
    if nodes:
        node = rng.choice(nodes)
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))


def _rename_output(model: onnx.ModelProto, rng: Random) -> None:
    nodes = [node for node in model.graph.node if node.output]
    if nodes:
        node = rng.choice(nodes)
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(model))


def _drop_or_add_input(model: onnx.ModelProto, rng: Random) -> None:
    if model.graph.node:
        node = rng.choice(model.graph.node)
        if node.input and rng.random() < 0.6:
            del node.input[rng.randrange(len(node.input)) :]
        else:
            node.input.append(rng.choice(_names(model)))


def _rename_node(model: onnx.ModelProto, rng: Random) -> None:
    for node in model.graph.node:
        if rng.random() < 0.5:
            node.name = rng.choice(("", "same", *TEXTS))


def _retype_node(model: onnx.ModelProto, rng: Random) -> None:
    if model.graph.node:
        node = rng.choice(model.graph.node)
        node.op_type = rng.choice(OPERATORS)
        if rng.random() < 0.2:
            node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "ai.onnx", "nobody", ""))


def _tensor(model: onnx.ModelProto, rng: Random) -> TensorProto | None:
    constants = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    tensors = [*model.graph.initializer, *constants]
    return rng.choice(tensors) if tensors else None


def _dims(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    if tensor is None:
        return
    what = rng.randrange(4)
    if what == 0 and tensor.dims:
        place = rng.randrange(len(tensor.dims))
        tensor.dims[place] = integer(rng, tensor.dims[place]) % 2**63
    elif what == 1:
        tensor.dims.append(rng.choice((0, 1, 2, 2**40, -1)))
    elif what == 2:
        rng.shuffle(tensor.dims)
    elif tensor.dims:
        del tensor.dims[-1]


def _resize(model: onnx.ModelProto, rng: Random) -> None:
    """Another shape of as many or other values, which are there: wrong for its readers."""
    tensor = _tensor(model, rng)
    if tensor is None:
        return
    dims = [rng.choice((0, 1, 2, 3, 8)) for _ in range(rng.randrange(6))]
    fresh = helper.make_tensor(
        tensor.name, TensorProto.FLOAT, dims, bytes(4 * _count(dims)), raw=True
    )
    tensor.CopyFrom(fresh)


def _count(dims: list[int]) -> int:
    count = 1
    for extent in dims:
        count *= extent
    return count


def _type(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    if tensor is not None:
        tensor.data_type = rng.choice((*range(28), 1000, -1))


def _integers(model: onnx.ModelProto, rng: Random) -> None:
    """Small integer constants are shapes, axes and indices: other ones."""
    tensors = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64]
    constants = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    tensors += [t for t in constants if t.data_type == TensorProto.INT64]
    if tensors:
        tensor = rng.choice(tensors)
        held = len(tensor.raw_data) // 8
        values = list(struct.unpack(f"<{held}q", tensor.raw_data[: 8 * held]))
        values = [integer(rng, v) if rng.random() < 0.5 else v for v in values] or [2**40]
        wrapped = [(v + 2**63) % 2**64 - 2**63 for v in values]
        tensor.raw_data = b"".join(v.to_bytes(8, "little", signed=True) for v in wrapped)


def _weights(model: onnx.ModelProto, rng: Random) -> None:
    """Values of weights that are extreme, or not numbers."""
    tensors = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    if tensors:
        tensor = rng.choice(tensors)
        count = len(tensor.raw_data) // 4
        value = helper.make_tensor("v", TensorProto.FLOAT, [1], [rng.choice(FLOATS) % 1e39])
        raw = onnx.numpy_helper.to_array(value).tobytes()
        places = range(count) if rng.random() < 0.5 else range(min(1, count))
        tensor.raw_data = raw * len(places) + tensor.raw_data[4 * len(places) :]


def _attribute(model: onnx.ModelProto, rng: Random) -> None:
    """An attribute of another type or value, or one too many."""
    nodes = [node for node in model.graph.node if node.attribute] or list(model.graph.node)
    if not nodes:
        return
    node = rng.choice(nodes)
    name = rng.choice([a.name for a in node.attribute] + ["axis", "group", "perm", "to", "body"])
    values = (integer(rng), rng.choice(FLOATS), "text", [], [1] * 3, [integer(rng), 1], [0.5, 1.0])
    value = rng.choice(values)
    try:
        made = helper.make_attribute(name, value)
    except (ValueError, TypeError):
        made = onnx.AttributeProto(name=name, type=rng.randrange(15))
    kept = [a for a in node.attribute if a.name != name or rng.random() < 0.1]
    copies = [onnx.AttributeProto.FromString(a.SerializePartialToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend([*copies, made])


def _opset(model: onnx.ModelProto, rng: Random) -> None:
    what = rng.randrange(4)
    if what == 0:
        model.ir_version = rng.choice((0, 1, 3, 4, 10, 13, 10**6, -1))
    elif what == 1 or not model.opset_import:
        model.opset_import.add(domain=rng.choice(("", "ai.onnx", "x")), version=rng.randrange(30))
    elif what == 2:
        del model.opset_import[:]
    else:
        entry = rng.choice(model.opset_import)
        entry.version = rng.choice((0, 1, 6, 7, 8, 11, 13, 18, 21, 24, 10**6, -1, 2**62))


def _extent(model: onnx.ModelProto, rng: Random) -> None:
    """An input, output or intermediate tensor of another shape or kind."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    what = rng.randrange(5)
    dims = value.type.tensor_type.shape.dim
    if what == 0 and dims:
        rng.choice(dims).dim_value = integer(rng, 8)
    elif what == 1:
        dims.add(dim_value=integer(rng, 1))
    elif what == 2 and dims:
        del dims[rng.randrange(len(dims))]
    elif what == 3:
        value.type.tensor_type.elem_type = rng.choice((*range(26), 1000))
    else:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1


def _interface(model: onnx.ModelProto, rng: Random) -> None:
    """Outputs that are inputs or initializers, inputs twice, initializers as inputs."""
    graph, what = model.graph, rng.randrange(6)
    if what == 0 and graph.input:
        graph.output.add().CopyFrom(rng.choice(graph.input))
    elif what == 1 and graph.input:
        graph.input.add().CopyFrom(rng.choice(graph.input))
    elif what == 2:
        for tensor in graph.initializer:
            kind, dims = tensor.data_type, list(tensor.dims)
            graph.input.append(helper.make_tensor_value_info(tensor.name, kind, dims))
    elif what == 3 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        graph.output.append(value)
    elif what == 4 and graph.initializer:
        del graph.initializer[rng.randrange(len(graph.initializer))]
    elif graph.output:
        graph.output[0].name = rng.choice(_names(model))


def _deep(model: onnx.ModelProto, rng: Random) -> None:
    """Subgraphs inside subgraphs."""
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "g", [], [])
    inner.output.add(name="z")
    for _ in range(rng.choice((1, 3, 12, 30, 33))):
        node = helper.make_node("If", ["x"], ["z"])
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)
        inner = onnx.GraphProto(name="g", node=[node])
        inner.output.add(name="z")
    model.graph.node.extend(inner.node)


def _functions(model: onnx.ModelProto, rng: Random) -> None:
    """Functions that call each other, themselves, or twice the one before, many times over."""
    count = rng.choice((1, 2, 8, 24, 40))
    circular = rng.random() < 0.4
    for number in range(count):
        callee = f"f{number + 1}" if number + 1 < count else ("f0" if circular else "Relu")
        nodes = [helper.make_node(callee, ["a"], ["b"]), helper.make_node(callee, ["b"], ["c"])]
        for node in nodes:
            node.domain = "" if callee == "Relu" else "own"
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made = helper.make_function("own", f"f{number}", ["a"], ["c"], nodes, imports)
        model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("own", 1))
    if model.graph.node:
        node = rng.choice(model.graph.node)
        node.domain, node.op_type = "own", "f0"


def _external(model: onnx.ModelProto, rng: Random) -> None:
    """A weight in a file: beside the model, elsewhere, beyond its end."""
    tensor = _tensor(model, rng)
    if tensor is None:
        return
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    del tensor.external_data[:]
    for key, values in (
        ("location", LOCATIONS),
        ("offset", ("0", "-1", "4", "10000", str(2**63), "text", "")),
        ("length", ("0", "-5", "64", "100000", str(2**62), "1e3", "")),
    ):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=rng.choice(values))


def _sparse(model: onnx.ModelProto, rng: Random) -> None:
    """A sparse weight, its places out of bounds or its extents beyond memory."""
    tensor = rng.choice(model.graph.initializer) if model.graph.initializer else None
    if tensor is None:
        return
    sparse = onnx.SparseTensorProto(dims=[rng.choice((8, 0, -1, 2**20, 2**40)), 3])
    sparse.values.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, [2], [1.0, 2.0]))
    places = [rng.choice((0, 1, 5, -1, 2**40)) for _ in range(2)]
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [2], places))
    if rng.random() < 0.5:
        model.graph.sparse_initializer.append(sparse)
        model.graph.initializer.remove(tensor)
    else:
        node = helper.make_node("Constant", [], [f"{tensor.name}_"], sparse_value=sparse)
        model.graph.node.append(node)


def _recipe(model: onnx.ModelProto, rng: Random) -> None:
    """A constant that is computed, of any size: arithmetic that is folded must not explode."""
    extents = [rng.choice((1, 8, 2**10, 2**16, 2**31, 2**40)) for _ in range(rng.choice((1, 2, 3)))]
    shape = helper.make_tensor("shape?", TensorProto.INT64, [len(extents)], extents)
    model.graph.initializer.append(shape)
    if rng.random() < 0.5:
        nodes = [helper.make_node("ConstantOfShape", ["shape?"], ["big?"])]
    else:
        one = helper.make_tensor("one?", TensorProto.FLOAT, [1], [1.0])
        model.graph.initializer.append(one)
        nodes = [helper.make_node(rng.choice(("Expand", "Tile")), ["one?", "shape?"], ["big?"])]
    last = "big?"
    for number in range(rng.randrange(4)):
        nodes.append(
            helper.make_node(rng.choice(("Neg", "Exp", "Relu")), [last], [f"more{number}?"])
        )
        last = f"more{number}?"
    readers = [node for node in model.graph.node if node.input]
    if readers:
        reader = rng.choice(readers)
        reader.input[rng.randrange(len(reader.input))] = last
    copies = [onnx.NodeProto.FromString(n.SerializePartialToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *copies])


LOCATIONS = (
    "weights.bin",
    "link.bin",
    "hard/../weights.bin",
    "missing.bin",
    "../outside.bin",
    "hard/../../outside.bin",
    "/etc/hostname",
    "/dev/zero",
    "/proc/self/mem",
    ".",
    "",
    "\0",
    "a" * 300,
)
OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Concat", "Split", "Slice"),
    *("Reshape", "Transpose", "Gather", "GatherND", "ScatterND", "Resize", "Pad", "Expand", "Tile"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization"),
    *("LSTM", "GRU", "RNN", "Attention", "Einsum", "If", "Loop", "Scan", "Shape", "Constant"),
    *("Softmax", "ReduceMean", "ReduceSum", "DepthToSpace", "SpaceToDepth", "Unsqueeze", "Squeeze"),
    *(
        "Flatten",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Dropout",
        "Cast",
        "Where",
        "Range",
    ),
    *(
        "QuantizeLinear",
        "DequantizeLinear",
        "TopK",
        "NonZero",
        "DeformConv",
        "Compress",
        "FusedConv",
    ),
    *("FusedGemm", "FusedMatMul", "MultiHeadAttention", "SkipLayerNormalization", "Nothing", ""),
)
STRUCTURAL: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    *(_rewire, _rewire, _rename_output, _drop_or_add_input, _rename_node, _retype_node, _dims),
    *(_dims, _resize, _type, _integers, _integers, _weights, _attribute, _attribute, _opset),
    *(_extent, _interface, _deep, _functions, _external, _sparse, _recipe),
)
