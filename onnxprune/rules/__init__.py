"""One rule per operator: which axes of its tensors carry the same channels."""

from onnxprune.rules import elementwise, joining, linear, normalization, pooling, resizing, shaping
from onnxprune.rules.registry import Facts, Kept, find_fixup, find_rule, registered

__all__ = [
    "Facts",
    "Kept",
    "elementwise",
    "find_fixup",
    "find_rule",
    "joining",
    "linear",
    "normalization",
    "pooling",
    "registered",
    "resizing",
    "shaping",
]
