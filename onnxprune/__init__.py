"""Post-training structured pruning of ONNX models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.api import Pruner, Result, prune
    from onnxprune.canonical import canonicalise
    from onnxprune.errors import OnnxPruneError
    from onnxprune.groups import find_groups
    from onnxprune.options import Options
    from onnxprune.plan import Plan, Weights
    from onnxprune.rewrite import apply
    from onnxprune.target import Target
    from onnxprune.validation import compare
else:
    _HOMES = {
        "OnnxPruneError": "errors",
        "Options": "options",
        "Plan": "plan",
        "Pruner": "api",
        "Result": "api",
        "Target": "target",
        "Weights": "plan",
        "apply": "rewrite",
        "canonicalise": "canonical",
        "compare": "validation",
        "find_groups": "groups",
        "prune": "api",
    }

    def __getattr__(name: str) -> object:
        """Import what is asked for when it is: a command does not pay for what it does not use."""
        if name not in _HOMES:
            raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
        found = getattr(import_module(f"onnxprune.{_HOMES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
