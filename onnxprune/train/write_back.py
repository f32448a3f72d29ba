"""Trained weights back into the file's own form: all that was not trained stays byte for byte."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.arrays import Array
from onnxprune.train.graph import SCALARS, to_torch
from onnxprune.train.network import TrainableNetwork

T = onnx.TensorProto
PLAIN_FIELDS: dict[int, str] = {T.FLOAT: "float_data", T.DOUBLE: "double_data"}
HALVES: dict[int, torch.dtype] = {T.FLOAT16: torch.float16, T.BFLOAT16: torch.bfloat16}


def write_back(model: onnx.ModelProto, network: TrainableNetwork) -> onnx.ModelProto:
    """A copy of the model with the network's weights and running statistics.

    They are stored in the form that the tensors had, so that equal values make equal bytes. A
    constant that several layers shared and trained apart becomes one of each.

    Args:
        model: the one that the network was made of.
        network: where a weight has a substitute, what it computes with is written.

    Raises:
        ValueError: the model is another one.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    found = dict(_stored(result.graph))
    for name, value in _values(network).items():
        if name in network.graph.untied:
            continue
        if name not in found:
            raise ValueError(f"the model has no constant '{name}': the network is of another one")
        found[name].replace(value)
    _write_untied(result.graph, network)
    return result


def _values(network: TrainableNetwork) -> dict[str, Tensor]:
    with torch.no_grad():
        weights = {name: network.effective(name) for name in network.weights}
        return {
            name: value.detach().cpu() for name, value in {**weights, **network.statistics}.items()
        }


class _Tensor:
    """A constant that is stored as a TensorProto."""

    def __init__(self, proto: onnx.TensorProto) -> None:
        self.proto = proto

    def replace(self, value: Tensor) -> None:
        """Store other values in the same field."""
        proto = self.proto
        raw = _bytes(value, proto.data_type)
        field = PLAIN_FIELDS.get(proto.data_type, "int32_data")
        if len(getattr(proto, field)):
            entries = getattr(proto, field)
            del entries[:]
            entries.extend(_entries(raw, proto.data_type))
        else:
            proto.raw_data = raw


class _Attribute:
    """A constant that is stored as floats in the attribute of a Constant node."""

    def __init__(self, proto: onnx.AttributeProto) -> None:
        self.proto = proto

    def replace(self, value: Tensor) -> None:
        """Store other values."""
        if self.proto.type == onnx.AttributeProto.FLOAT:
            self.proto.f = float(value)
        else:
            self.proto.floats[:] = value.float().reshape(-1).tolist()


def _stored(graph: onnx.GraphProto) -> Iterator[tuple[str, _Tensor | _Attribute]]:
    """The constants of a graph by name."""
    for tensor in graph.initializer:
        yield tensor.name, _Tensor(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute:
            attribute = node.attribute[0]
            if attribute.name == "value":
                yield node.output[0], _Tensor(attribute.t)
            elif attribute.name in SCALARS:
                yield node.output[0], _Attribute(attribute)


def _bytes(value: Tensor, code: int) -> bytes:
    """Little-endian bytes of a tensor of floats in a type of ONNX."""
    if code in HALVES:
        half = value.to(HALVES[code]).contiguous().view(torch.int16)
        return _little(half.numpy())
    kind = np.float64 if code == T.DOUBLE else np.float32
    return _little(value.contiguous().numpy().astype(kind))


def _little(values: Array) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _entries(raw: bytes, code: int) -> list[float] | list[int]:
    """What the plain field of a type holds; half precision is stored as its bits."""
    kinds: dict[int, str] = {T.FLOAT: "<f4", T.DOUBLE: "<f8"}
    listed: list[float] = np.frombuffer(raw, kinds.get(code, "<u2")).tolist()
    return listed


def _write_untied(graph: onnx.GraphProto, network: TrainableNetwork) -> None:
    """Give each layer whose constant is no longer the one it shared a constant of its own."""
    shared = {name: stored.proto for name, stored in _stored(graph) if isinstance(stored, _Tensor)}
    values, gone = _values(network), []
    for name, untied in network.graph.untied.items():
        source = shared[untied.source]
        if name not in values or torch.equal(to_torch(source, untied.source), values[name]):
            continue
        raw, code = _bytes(values[name], source.data_type), source.data_type
        tensor = onnx.TensorProto(name=name, data_type=code, dims=source.dims, raw_data=raw)
        graph.initializer.append(tensor)
        if untied.place is None:
            gone.append(untied.node)
        else:
            graph.node[untied.node].input[untied.place] = name
    for place in sorted(gone, reverse=True):
        del graph.node[place]
