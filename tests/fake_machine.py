"""A machine whose times are known: steps of whole blocks, and what leaves them is slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import shape_inference

from onnxprune.arrays import Feed
from onnxprune.kernel_times import Kernels
from onnxprune.micro_model import MicroModel

BLOCK = 16
REST = 0.5


def ceiled(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def convolution(weight: Sequence[int], parts: int) -> float:
    """Milliseconds per position, for a weight (outputs, inputs of a part, kernel)."""
    made, read, *kernel = weight
    taps = float(np.prod(kernel)) * 1e-3
    if parts > 1 and read == 1 and made == parts:
        return taps * (ceiled(parts) if parts % 4 == 0 else 7 * parts)
    if parts > 1:
        whole = read % BLOCK == 0 and made // parts % BLOCK == 0
        return taps * read * made * (1 if whole else 3)
    if read >= BLOCK and read % 4:
        return 1.4 * taps * read * made
    return taps * (read if read < BLOCK else ceiled(read)) * ceiled(made)


def layer_time(op: str, x: Sequence[int], weight: Sequence[int], parts: int) -> float:
    if op == "Conv":
        return x[0] * float(np.prod(x[2:])) * convolution(weight, parts)
    if op == "ConvTranspose":
        return float(np.prod(x)) * float(np.prod(weight[1:])) * 1e-3
    return float(np.prod(x[:-1])) * float(np.prod(weight)) * 1e-3


@dataclass
class Machine:
    """A timer; ``entry`` is the time of all other nodes per entry they write.

    ``drift``: how much slower whole models run than micro models.
    """

    entry: float = 0.0
    drift: float = 1.0
    timed: int = 0
    seen: list[MicroModel] = field(default_factory=list)

    def layers(self, models: Sequence[MicroModel]) -> list[float]:
        self.timed += len(models)
        self.seen += models
        return [self._layer(model) for model in models]

    def _layer(self, model: MicroModel) -> float:
        parts = int(dict(model.attributes).get("group", 1))
        return layer_time(model.op, model.x, model.constants[0], parts)

    def whole(self, model: onnx.ModelProto, feed: Feed) -> Kernels:
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        for value in fixed.graph.input:
            for dim, extent in zip(
                value.type.tensor_type.shape.dim, feed[value.name].shape, strict=True
            ):
                dim.dim_value = extent
        del fixed.graph.value_info[:]
        for value in fixed.graph.output:
            value.type.tensor_type.ClearField("shape")
        graph = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
        shapes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*graph.value_info, *graph.output, *graph.input)
        }
        weights = {t.name: list(t.dims) for t in graph.initializer}
        times = {}
        for node in graph.node:
            if len(node.input) > 1 and node.input[1] in weights and node.op_type in LAYERS:
                parts = next((a.i for a in node.attribute if a.name == "group"), 1)
                x, weight = shapes[node.input[0]], weights[node.input[1]]
                times[node.name] = layer_time(node.op_type, x, weight, parts) * self.drift
            else:
                entries = np.prod(shapes[node.output[0]]) + np.prod(shapes[node.input[0]])
                times[node.name] = float(entries) * self.entry * self.drift
        return Kernels(times, REST, sum(times.values()) + REST)


LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
