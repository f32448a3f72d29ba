"""Post-training structured pruning of ONNX models."""

from onnxprune.api import Pruner, Result, prune
from onnxprune.canonical import canonicalise
from onnxprune.errors import OnnxPruneError
from onnxprune.groups import find_groups
from onnxprune.options import Options
from onnxprune.plan import Plan, Weights
from onnxprune.rewrite import apply
from onnxprune.target import Target
from onnxprune.validation import compare

__all__ = [
    "OnnxPruneError",
    "Options",
    "Plan",
    "Pruner",
    "Result",
    "Target",
    "Weights",
    "apply",
    "canonicalise",
    "compare",
    "find_groups",
    "prune",
]
