"""Operators that work on each element alone, broadcasting their inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.registry import EVERY, Function, Node, Result, operator
from onnxprune.train.operators.types import torch_type

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
MANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda _, x: function(x)


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda _, a, b: function(a, b)


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda _, *parts: reduce(function, parts)


for _op, _function in UNARY.items():
    operator(_op)(_unary(_function))
for _op, _both in PAIRS.items():
    operator(_op)(_pair(_both))
operator("Add", shifts=(0, 1))(_pair(torch.add))
operator("Sub", shifts=(1,))(_pair(torch.sub))
operator("Mul", scales=(0, 1))(_pair(torch.mul))
for _op, _both in MANY.items():
    operator(_op)(_many(_both))
operator("Sum", shifts=EVERY)(_many(torch.add))


@operator("Mean")
def mean(node: Node, *parts: Tensor) -> Tensor:
    """The mean of all inputs."""
    return reduce(torch.add, parts) / len(parts)


@operator("Div", scales=(1,))
def divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Whole numbers are divided towards zero."""
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


@operator("Mod")
def modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The remainder has the sign of the divisor, or with fmod that of the dividend."""
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


@operator("Pow")
def power(node: Node, x: Tensor, exponent: Tensor) -> Tensor:
    """The result has the type of the base."""
    return torch.pow(x, exponent).to(x.dtype)


@operator("BitShift")
def bit_shift(node: Node, x: Tensor, places: Tensor) -> Tensor:
    """Left or right, as the attribute says."""
    left = node.attributes["direction"] == "LEFT"
    return torch.bitwise_left_shift(x, places) if left else torch.bitwise_right_shift(x, places)


@operator("Where")
def where(node: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """X where the condition holds, else Y."""
    return torch.where(condition, x, y)


@operator("PRelu", weights=(1,))
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """Negative elements times a slope."""
    return torch.where(x < 0, x * slope, x)


@operator("Clip")
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Between bounds; attributes before opset 11."""
    if "min" in node.attributes or "max" in node.attributes:
        return torch.clamp(x, node.get("min", None), node.get("max", None))
    if low is None and high is None:
        return x
    return torch.clamp(
        x,
        None if low is None else low.reshape(()),
        None if high is None else high.reshape(()),
    )


@operator("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    """To another type; fractions are cut off."""
    return x.to(torch_type(node.attributes["to"], node.name))


@operator("CastLike")
def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    """To the type of another tensor."""
    return x.to(like.dtype)


@operator("Dropout", values=(1, 2))
def dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, _training: Tensor | None = None
) -> Result:
    """In training, elements are dropped and the others scaled up; else it does nothing.

    What the model says of training_mode does not count: exporters write the mode of the export.
    """
    share = float(ratio) if ratio is not None else float(node.get("ratio", 0.5))
    if not node.mode.training or share == 0:
        return (x, torch.ones_like(x, dtype=torch.bool)) if node.makes(1) else x
    if not node.makes(1):
        return functional.dropout(x, share)
    mask = torch.rand_like(x) >= share
    return x * mask / (1 - share), mask


@operator("IsInf")
def is_infinite(node: Node, x: Tensor) -> Tensor:
    """Of one sign or both."""
    found = torch.zeros_like(x, dtype=torch.bool)
    if node.get("detect_positive", 1):
        found = found | torch.isposinf(x)
    if node.get("detect_negative", 1):
        found = found | torch.isneginf(x)
    return found
