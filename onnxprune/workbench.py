"""What operators are taken apart with: names, constants, and what is known of the tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.arrays import Array
from onnxprune.model import infer_shapes
from onnxprune.names import fresh
from onnxprune.stand_ins import opset_of


@dataclass
class Bench:
    """A model as it is taken apart.

    Attributes:
        opset: version of the standard operators.
        taken: names in use.
        constants: the constant tensors.
        shapes: shapes of tensors, None for an extent that is not a known number.
        types: element types of tensors.
        made: new constants.
    """

    opset: int
    taken: set[str]
    constants: dict[str, onnx.TensorProto]
    shapes: dict[str, list[int | None]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    made: list[onnx.TensorProto] = field(default_factory=list)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Bench:
        """Learn what shape inference knows of a model."""
        graph = infer_shapes(model).graph
        taken = {name for node in graph.node for name in (*node.input, *node.output)}
        bench = cls(opset_of(model), taken, _constants(graph))
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            bench.types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                bench.shapes[value.name] = [
                    d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim
                ]
        for name, tensor in bench.constants.items():
            bench.taken.add(name)
            bench.shapes[name] = list(tensor.dims)
            bench.types[name] = tensor.data_type
        return bench

    def name(self, base: str) -> str:
        """A name that nothing else has."""
        return fresh(base, self.taken)

    def values(self, name: str) -> Array | None:
        """The values of a constant; None where a tensor is none."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def constant(self, base: str, values: Array) -> str:
        """The name of a new constant."""
        name = self.name(base)
        self.made.append(numpy_helper.from_array(values, name))
        return name

    def scalar(self, base: str, value: float, like: str) -> str:
        """The name of a new constant of the type of another tensor."""
        dtype = helper.tensor_dtype_to_np_dtype(self.types.get(like) or onnx.TensorProto.FLOAT)
        return self.constant(base, np.array(value, dtype))

    def rank(self, name: str) -> int | None:
        """How many axes a tensor has, if that is known."""
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node, by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants
