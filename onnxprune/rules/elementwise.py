"""Operators that work on each element alone, broadcasting their inputs."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.rules.registry import Facts, rule

UNARY = (
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
)
BROADCAST = (
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
)


@rule(*UNARY)
def unary(node: gs.Node, facts: Facts) -> None:
    """Y[i] = f(X[i]): every axis passes through."""
    x, y = node.inputs[0], node.outputs[0]
    for axis in facts.live(x):
        facts.couple(facts.axis(x, axis), facts.axis(y, axis))


@rule("Clip")
def clip(node: gs.Node, facts: Facts) -> None:
    """Every axis passes through; the bounds are scalars."""
    unary(node, facts)


@rule("CastLike")
def cast_like(node: gs.Node, facts: Facts) -> None:
    """Every axis of X passes through; the second input gives its type alone."""
    unary(node, facts)
    for axis in facts.live(node.inputs[1]):
        facts.axis(node.inputs[1], axis)  # mentioned: it may be cut


@rule("Dropout")
def dropout(node: gs.Node, facts: Facts) -> None:
    """Every axis passes through, to the mask as well."""
    for output in node.outputs:
        if not output.is_empty():
            for axis in facts.live(node.inputs[0]):
                facts.couple(facts.axis(node.inputs[0], axis), facts.axis(output, axis))


@rule(*BROADCAST)
def broadcast(node: gs.Node, facts: Facts) -> None:
    """Axes are matched from the right; an input of extent 1 is repeated and holds no channel."""
    y = node.outputs[0]
    if y.shape is None or any(t.shape is None for t in node.inputs):
        return
    broadcast_axes(node, facts, range(len(y.shape)))


def broadcast_axes(node: gs.Node, facts: Facts, axes: range) -> None:
    """Match the inputs' axes with these of the output, counted from the right.

    An input of extent 1 is repeated and holds no channel.
    """
    y = node.outputs[0]
    rank = len(y.shape)
    if any(len(tensor.shape) > rank for tensor in node.inputs):
        return  # the model declares a wrong shape for y
    carried = {axis + rank - len(t.shape) for t in node.inputs for axis in facts.live(t)}
    for axis in sorted(carried & set(axes)):
        made = facts.axis(y, axis)
        for tensor in node.inputs:
            own = axis - (rank - len(tensor.shape))
            if own < 0:
                continue
            if tensor.shape[own] == 1 and y.shape[axis] != 1:
                if own in facts.live(tensor):
                    reason = f"'{node.name}' repeats one channel of '{tensor.name}'"
                    facts.freeze(facts.axis(tensor, own), reason)
                continue
            facts.couple(facts.axis(tensor, own), made)
