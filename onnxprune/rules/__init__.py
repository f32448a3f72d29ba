"""One rule per operator: which axes of its tensors carry the same channels."""

from onnxprune.rules import (
    blocking,
    elementwise,
    gathering,
    joining,
    linear,
    normalization,
    pooling,
    repeating,
    resizing,
    shaping,
)
from onnxprune.rules.registry import Facts, Kept, find_fixup, find_rule, registered

__all__ = [
    "Facts",
    "Kept",
    "blocking",
    "elementwise",
    "find_fixup",
    "find_rule",
    "gathering",
    "joining",
    "linear",
    "normalization",
    "pooling",
    "registered",
    "repeating",
    "resizing",
    "shaping",
]
