"""Criteria: which channels of a group to keep, and what every count costs its consumers."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.criteria.magnitude import Magnitude, Random, Variance
from onnxprune.criteria.medoids import Medoids
from onnxprune.criteria.obs import Obs
from onnxprune.criteria.protocol import Criterion, Settings
from onnxprune.criteria.reduction import error_curve
from onnxprune.criteria.squeeze import Squeeze
from onnxprune.criteria.subspace import Subspace

__all__ = [
    "CRITERIA",
    "Criterion",
    "Magnitude",
    "Medoids",
    "Obs",
    "Random",
    "Settings",
    "Squeeze",
    "Subspace",
    "Variance",
    "error_curve",
]

CRITERIA: dict[str, Callable[[Settings], Criterion]] = {
    "obs": lambda _: Obs(),
    "squeeze": lambda given: Squeeze(given.moments),
    "snp": lambda given: Subspace(given.order),
    "l1": lambda _: Magnitude(power=1),
    "l2": lambda _: Magnitude(power=2),
    "medoids": lambda _: Medoids(),
    "variance": lambda _: Variance(),
    "random": lambda given: Random(given.seed),
}
"""Every criterion by its name on the command line; the factory takes the run's settings."""
