"""A LeNet-5 with more hidden layers than it needs, as an ONNX model with random weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN = (120, 84, 84, 84, 84, 84)
"""Widths of the hidden layers; LeNet-5 has the first two."""
OPSET = 17


def lenet(seed: int, hidden: tuple[int, ...] = HIDDEN) -> onnx.ModelProto:
    """Two convolutions with poolings and fully connected layers, for (batch, 1, 28, 28).

    Weights are He-normal.
    """
    builder = _Builder(np.random.default_rng(seed))
    name = "input"
    for place, (inputs, outputs) in enumerate(((1, 6), (6, 16))):
        name = builder.layer("Conv", f"conv{place}", name, (outputs, inputs, 5, 5))
        name = builder.node("Relu", f"conv{place}/relu", [name])
        name = builder.node(
            "MaxPool", f"conv{place}/pool", [name], kernel_shape=[2, 2], strides=[2, 2]
        )
    name, width = builder.node("Flatten", "flatten", [name]), 16 * 4 * 4
    for place, outputs in enumerate(hidden):
        name = builder.layer("Gemm", f"hidden{place}", name, (outputs, width), transB=1)
        name = builder.node("Relu", f"hidden{place}/relu", [name])
        width = outputs
    builder.layer("Gemm", "head", name, (10, width), output="logits", transB=1)
    return builder.model()


class _Builder:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, op: str, name: str, inputs: list[str], output: str = "", **given: object) -> str:
        made = output or f"{name}.out"
        self._nodes.append(helper.make_node(op, inputs, [made], name, **given))
        return made

    def layer(
        self,
        op: str,
        name: str,
        data: str,
        shape: tuple[int, ...],
        output: str = "",
        **given: object,
    ) -> str:
        weight = self._rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        for what, values in (("weight", weight), ("bias", np.zeros(shape[0]))):
            self._weights.append(
                numpy_helper.from_array(values.astype(np.float32), f"{name}.{what}")
            )
        return self.node(op, name, [data, f"{name}.weight", f"{name}.bias"], output, **given)

    def model(self) -> onnx.ModelProto:
        def value(name: str, shape: list[object]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self._nodes,
            "lenet",
            [value("input", ["batch", 1, 28, 28])],
            [value("logits", ["batch", 10])],
            self._weights,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model
