"""Typed errors: every message says what happened, where, and what to do next."""

from __future__ import annotations


class OnnxPruneError(Exception):
    """Base of every error the package raises on purpose; the command exits with 1."""


class UnsupportedModelError(OnnxPruneError):
    """The model cannot be read, or is of a kind that cannot be pruned."""


class CalibrationError(OnnxPruneError):
    """The calibration samples do not fit the model, or cannot be read."""


class MetricError(OnnxPruneError):
    """The user's metric failed or is no number, or the labels do not fit the samples."""


class TargetError(OnnxPruneError):
    """The targets cannot be reached; the message names the values that can."""


class PlanMismatchError(OnnxPruneError):
    """A plan or weights file does not belong to the model it is applied to."""


class ValidationError(OnnxPruneError):
    """The new model failed a check; no output is written."""


class InterfaceError(OnnxPruneError):
    """Two models do not take the same inputs or give the same outputs, and are not comparable."""


class BoundError(OnnxPruneError):
    """A model is further from another than the user allows."""


class ReportError(OnnxPruneError):
    """A saved report cannot be read, or lacks what is asked of it."""


class TrainingError(OnnxPruneError):
    """Training cannot start, cannot go on, or has gone astray."""


class MissingLibraryError(OnnxPruneError):
    """An optional library is not installed; the message says how to install it."""
