"""One layer as a model of its own, with as many channels as one likes, to be timed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.arrays import Array, Feed
from onnxprune.linear_map import LinearMap

Shape = tuple[int, ...]

DRAWN = 2**16
"""So many different values are in a tensor at most."""


@dataclass(frozen=True)
class MicroModel:
    """One node, one activation and constants.

    Attributes:
        op: the operator.
        attributes: its attributes, sorted by name.
        opset: version of the standard operators.
        dtype: name of the element type of all tensors.
        x: shape of the activation.
        constants: shapes of the weight and of what follows it.
        cold: whether the weights have left the caches before every run.
    """

    op: str
    attributes: tuple[tuple[str, Any], ...]
    opset: int
    dtype: str
    x: Shape
    constants: tuple[Shape, ...]
    cold: bool = False

    @property
    def key(self) -> str:
        """All that the time of the node depends on, as text."""
        return json.dumps(list(vars(self).values()), sort_keys=True)

    def proto(self) -> onnx.ModelProto:
        """The model, whose input is the activation."""
        x = helper.make_tensor_value_info("x", self._kind, self.x)
        return self._model([x], [self._node], "y")

    def device_proto(self) -> onnx.ModelProto:
        """A model without inputs that gives one number: nothing has to travel to a device or back.

        It is to be run without optimisation, which would compute the number beforehand.
        """
        least = helper.make_node("ReduceMin", ["y"], ["z"], keepdims=0)
        return self._model([], [self._node, least], "z")

    def _model(
        self, inputs: list[onnx.ValueInfoProto], nodes: list[onnx.NodeProto], output: str
    ) -> onnx.ModelProto:
        made = helper.make_tensor_value_info(output, self._kind, None)
        opset = helper.make_opsetid("", self.opset)
        # the newest format that the oldest supported onnxruntime reads
        model = helper.make_model(
            helper.make_graph(nodes, "micro", inputs, [made]), opset_imports=[opset], ir_version=8
        )
        values = self._weights() if inputs else self._weights() | self.feed()
        for name, value in values.items():  # put where they stay: an activation can be large
            tensor = model.graph.initializer.add(name=name, dims=value.shape, data_type=self._kind)
            tensor.raw_data = value.tobytes()
        return model

    def _weights(self) -> Feed:
        """Weights that keep the scale of what passes."""
        return {
            f"w{i}": self._noise(shape, 1 / math.sqrt(max(1, math.prod(shape[1:]))))
            for i, shape in enumerate(self.constants)
        }

    def _noise(self, shape: Shape, scale: float = 1.0) -> Array:
        """No zeros, which some kernels skip; drawn once and repeated, which no kernel notices."""
        drawn = scale * np.random.default_rng(0).standard_normal(min(math.prod(shape), DRAWN))
        return np.resize(drawn.astype(self.dtype), shape)

    @property
    def _node(self) -> onnx.NodeProto:
        names = ["x", *(f"w{i}" for i in range(len(self.constants)))]
        return helper.make_node(self.op, names, ["y"], **dict(self.attributes))

    @property
    def _kind(self) -> int:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))

    def feed(self) -> Feed:
        """An input."""
        return {"x": self._noise(self.x)}


@dataclass(frozen=True)
class Layer:
    """A linear map of a network that can be timed with other numbers of channels.

    Channels are those of one part; a convolution with a part for every channel it reads has its
    number of channels for both.

    Attributes:
        linear_map: the map.
        x: shape of what it reads in the unpruned network.
        opset: version of the standard operators.
        cold: whether its weights leave the caches between two runs of the network.
    """

    linear_map: LinearMap
    x: Shape
    opset: int
    cold: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether every part reads one channel, so that parts go with the channels."""
        return self.linear_map.groups > 1 and self.linear_map.inputs == self.linear_map.groups

    @property
    def parts(self) -> int:
        """Parts whose number does not change."""
        return 1 if self.depthwise else self.linear_map.groups

    @property
    def key(self) -> str:
        """The same for layers that take the same time at the same numbers of channels."""
        own = self.linear_map
        roles = (own.x_axis, own.in_axis, own.out_axis, own.groups)
        return f"{self.at(own.inputs // self.parts, own.outputs // self.parts).key} {roles}"

    def at(self, inputs: int, outputs: int) -> MicroModel:
        """The layer reading and making so many channels per part."""
        own, node = self.linear_map, self.linear_map.node
        attributes = dict(node.attrs)
        x, weight = list(self.x), list(own.weight.shape)
        if self.depthwise:
            attributes["group"] = inputs
            multiplier = own.outputs // own.groups
            x[own.x_axis] = inputs
            weight[own.in_axis if own.transposed else own.out_axis] = inputs * (
                1 if own.transposed else multiplier
            )
            made = inputs * multiplier
        else:
            x[own.x_axis] = inputs * self.parts
            weight[own.in_axis] = inputs * (self.parts if own.transposed else 1)
            weight[own.out_axis] = outputs * (1 if own.transposed else self.parts)
            made = outputs * self.parts
        bias = () if own.bias is None else ((made,),)
        return MicroModel(
            str(node.op),
            tuple(sorted((name, _plain(value)) for name, value in attributes.items())),
            self.opset,
            str(own.weight.values.dtype),
            tuple(x),
            (tuple(weight), *bias),
            self.cold,
        )


def _plain(value: Any) -> Any:
    """An attribute as JSON has it."""
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
