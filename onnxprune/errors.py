"""Typed errors: every message says what happened, where, and what to do next."""

from __future__ import annotations


class OnnxPruneError(Exception):
    """Base of every error the package raises on purpose; the command exits with 1."""


class UnsupportedModelError(OnnxPruneError):
    """The model cannot be read, or is of a kind that cannot be pruned."""


class CalibrationError(OnnxPruneError):
    """The calibration samples do not fit the model, or cannot be read."""


class TargetError(OnnxPruneError):
    """The target cannot be reached; the message names the smallest reachable value."""


class PlanMismatchError(OnnxPruneError):
    """A plan or weights file does not belong to the model it is applied to."""


class ValidationError(OnnxPruneError):
    """The pruned model failed a check; no output is written."""
