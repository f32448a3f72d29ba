"""Linear maps with constant weights: they make channels and they mix channels."""

from __future__ import annotations

import math
from typing import Any

import onnx_graphsurgeon as gs

from onnxprune.linear_map import Contraction, LinearMap, Window
from onnxprune.rules.elementwise import broadcast_axes
from onnxprune.rules.registry import Facts, Kept, fixup, rule


@rule("Conv")
def convolution(node: gs.Node, facts: Facts) -> None:
    """Y[:, o] is made by W[o]; W[:, i] reads X[:, i]; depthwise channels pass through."""
    if _cuttable(node):
        facts.couple(facts.axis(node.inputs[1], 0), facts.axis(node.outputs[0], 1))
        _couple_bias(node, facts)
        relate_channels(LinearMap(node, 1, 1, 1, 0, _groups(node), _window(node)), facts)


@rule("ConvTranspose")
def transposed_convolution(node: gs.Node, facts: Facts) -> None:
    """W[i] spreads X[:, i] over Y; W[:, o] makes Y[:, o]; depthwise channels pass through."""
    if _cuttable(node):
        facts.couple(facts.axis(node.inputs[1], 0), facts.axis(node.inputs[0], 1))
        _couple_bias(node, facts)
        strides = math.prod(node.attrs.get("strides") or [1])
        relate_channels(LinearMap(node, 1, 1, 0, 1, _groups(node), upsampling=strides), facts)


def relate_channels(linear_map: LinearMap, facts: Facts) -> None:
    """State what a convolution's input and output channels have to do with each other.

    It mixes them, within its parts if it is grouped; depthwise, with a multiplier m, output
    channel c * m + j reads input channel c alone.
    """
    facts.produces(linear_map)
    weight, groups = linear_map.weight, linear_map.groups
    read = facts.axis(linear_map.x, linear_map.x_axis)
    made = facts.axis(linear_map.y, linear_map.y_axis)
    if groups > 1 and linear_map.inputs == groups:
        if read.size:
            facts.couple(read.repeat(linear_map.outputs // groups), made)
        else:
            facts.freeze(made, f"the input channels of '{linear_map.name}' are not known")
        return
    facts.consumes(linear_map)
    if groups > 1:
        facts.balance(read, groups)
        facts.balance(made, groups)
    elif linear_map.transposed:
        facts.couple(facts.axis(weight, linear_map.out_axis), made)
    else:
        facts.couple(facts.axis(weight, linear_map.in_axis), read)


@fixup("Conv", "ConvTranspose", "DeformConv")
def convolution_groups(node: gs.Node, kept: Kept) -> None:
    """A depthwise convolution has as many groups as input channels."""
    x, groups = node.inputs[0], _groups(node)
    if groups > 1 and kept.is_cut(x, 1) and x.shape[1] == groups:
        node.attrs["group"] = int(kept.entries(x, 1).size)


def _groups(node: gs.Node) -> int:
    return int(node.attrs.get("group", 1))


@rule("Gemm")
def gemm(node: gs.Node, facts: Facts) -> None:
    """Y[:, o] is made by row o of W, which reads X[:, i] with column i (as transB has it)."""
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    plain = node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0
    if not _used_alike(weight) or node.attrs.get("transA", 0) or not plain:
        return
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        bias = node.inputs[2]
        if not _owned(bias) or len(bias.shape) != 1:
            return
    out_axis = 0 if node.attrs.get("transB", 0) else 1
    facts.couple(facts.axis(weight, out_axis), facts.axis(y, 1))
    facts.couple(facts.axis(weight, 1 - out_axis), facts.axis(x, 1))
    _couple_bias(node, facts)
    linear_map = LinearMap(node, 1, 1, 1 - out_axis, out_axis)
    facts.produces(linear_map)
    facts.consumes(linear_map)


@rule("MatMul")
def matmul(node: gs.Node, facts: Facts) -> None:
    """Y[..., o] is made by W[:, o], W[i] reads X[..., i]; or both factors are activations."""
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if not isinstance(x, gs.Constant) and not isinstance(weight, gs.Constant):
        contract(node, facts)
        return
    if not _used_alike(weight) or len(weight.shape) != 2:
        return
    if x.shape is None or len(x.shape) < 2:
        return
    last = len(x.shape) - 1
    for axis in facts.live(x):
        if axis != last:
            facts.couple(facts.axis(x, axis), facts.axis(y, axis))
    facts.couple(facts.axis(weight, 0), facts.axis(x, last))
    facts.couple(facts.axis(weight, 1), facts.axis(y, last))
    linear_map = LinearMap(node, last, last, 0, 1)
    facts.produces(linear_map)
    facts.consumes(linear_map)


def contract(node: gs.Node, facts: Facts) -> None:
    """Y[..., m, n] = sum over k of A[..., m, k] B[..., k, n]; leading axes are broadcast."""
    (a, b), y = node.inputs, node.outputs[0]
    if any(tensor.shape is None or len(tensor.shape) < 2 for tensor in (a, b, y)):
        return
    rank = len(y.shape)
    left, right = facts.live(a), facts.live(b)
    shared = len(a.shape) - 1, len(b.shape) - 2
    if shared[0] in left or shared[1] in right:
        facts.couple(facts.axis(a, shared[0]), facts.axis(b, shared[1]))
        facts.contracts(Contraction(node, *shared))
    if len(a.shape) - 2 in left:
        facts.couple(facts.axis(a, len(a.shape) - 2), facts.axis(y, rank - 2))
    if len(b.shape) - 1 in right:
        facts.couple(facts.axis(b, len(b.shape) - 1), facts.axis(y, rank - 1))
    broadcast_axes(node, facts, range(rank - 2))


def _cuttable(node: gs.Node) -> bool:
    """Whether a convolution has constant weights and a known number of axes."""
    x, weight, *bias = node.inputs
    known = _used_alike(weight) and x.shape is not None and len(x.shape) > 2
    return known and all(tensor.is_empty() or _owned(tensor) for tensor in bias)


def _owned(tensor: gs.Tensor) -> bool:
    """Whether a bias is constant and read by this node alone."""
    return isinstance(tensor, gs.Constant) and len(tensor.outputs) == 1


def _used_alike(weight: gs.Tensor) -> bool:
    """Whether a weight is constant and the same axes of it read and make channels everywhere."""
    if not isinstance(weight, gs.Constant):
        return False
    roles = {
        (node.op, node.attrs.get("transB", 0), node.attrs.get("group", 1))
        for node in weight.outputs
    }
    weights = all(len(n.inputs) > 1 and n.inputs[1] is weight for n in weight.outputs)
    return len(roles) == 1 and weights


def _couple_bias(node: gs.Node, facts: Facts) -> None:
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        facts.couple(facts.axis(node.inputs[2], 0), facts.axis(node.outputs[0], 1))


def _window(node: gs.Node) -> Window | None:
    kernel = tuple(node.inputs[1].values.shape[2:])
    if node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return None  # the padding depends on an input size nobody knows
    rank = len(kernel)

    def numbers(key: str, default: int, count: int) -> tuple[Any, ...]:
        return tuple(int(v) for v in node.attrs.get(key) or [default] * count)

    pads = numbers("pads", 0, 2 * rank)
    return Window(
        kernel,
        numbers("strides", 1, rank),
        numbers("dilations", 1, rank),
        pads[:rank],
        pads[rank:],
    )
