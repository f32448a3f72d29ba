"""One function per operator: what it computes, on tensors of torch."""

from onnxprune.train.operators import (
    activations,
    attention,
    elementwise,
    fused,
    indexing,
    linear,
    normalization,
    pooling,
    recurrent,
    resizing,
    shaping,
    warping,
)
from onnxprune.train.operators.registry import Mode, Node, Operator, find_operator, known

__all__ = [
    "Mode",
    "Node",
    "Operator",
    "activations",
    "attention",
    "elementwise",
    "find_operator",
    "fused",
    "indexing",
    "known",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "resizing",
    "shaping",
    "warping",
]
