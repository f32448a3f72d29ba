"""FusedConv, which onnxruntime writes into models it has optimised, as the nodes it stands for.

onnxruntime fuses them again when it loads the model. Shapes behind a FusedConv are known to nobody
but onnxruntime, so that constants could not be folded and channels not be followed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.names import fresh

DOMAIN, FUSED = "com.microsoft", "FusedConv"
BOUNDS_ARE_INPUTS = 11
"""First opset in which the bounds of a Clip are inputs, not attributes."""
PARAMETERS: dict[str, tuple[str, ...]] = {
    "": (),
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""The activations that are fused, if any, and the attributes their parameters are in order."""


def split_fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without FusedConv, or the model itself if it has none.

    One with an activation that is not known stays.
    """
    if not any(_is_known(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    opset = max(versions, default=1)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if _is_known(node):
            nodes += _apart(node, copy.graph, opset, taken)
        else:
            nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _is_known(node: onnx.NodeProto) -> bool:
    if (node.domain, node.op_type) != (DOMAIN, FUSED):
        return False
    given = _attributes(node)
    parameters = PARAMETERS.get(given.get("activation", b"").decode())
    return parameters is not None and len(parameters) == len(given.get("activation_params", ()))


def _apart(
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    opset: int,
    taken: set[str],
) -> Iterator[onnx.NodeProto]:
    """Conv, Add where there is a fourth input, and the activation where there is one."""
    y = node.output[0]
    given = _attributes(node)
    activation = given.get("activation", b"").decode()
    addend = node.input[3] if len(node.input) > 3 else ""
    result = fresh(f"{y}/conv", taken) if activation or addend else y
    conv = helper.make_node("Conv", node.input[:3], [result], node.name)
    conv.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    yield conv
    if addend:
        total = fresh(f"{y}/sum", taken) if activation else y
        yield helper.make_node("Add", [result, addend], [total], _name(node, "sum"))
        result = total
    if activation:
        names = PARAMETERS[activation]
        values = dict(zip(names, given.get("activation_params", ()), strict=True))
        inputs = [result]
        if activation == "Clip" and opset >= BOUNDS_ARE_INPUTS:
            inputs += [_bound(graph, fresh(f"{y}/{key}", taken), values.pop(key)) for key in names]
        yield helper.make_node(activation, inputs, [y], _name(node, activation), **values)


def _bound(graph: onnx.GraphProto, name: str, value: float) -> str:
    tensor = numpy_helper.from_array(np.array(value, np.float32), name)
    graph.initializer.append(tensor)
    return name


def _name(node: onnx.NodeProto, part: str) -> str:
    return f"{node.name}/{part}" if node.name else ""


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
