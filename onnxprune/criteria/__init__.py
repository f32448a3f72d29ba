"""Criteria: which channels of a group to keep, and what every count costs its consumers."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.criteria.cumulative import unexplained_variance
from onnxprune.criteria.magnitude import Magnitude, Random, Variance
from onnxprune.criteria.medoids import Medoids
from onnxprune.criteria.obs import Obs
from onnxprune.criteria.protocol import Criterion
from onnxprune.criteria.reduction import error_curve
from onnxprune.criteria.subspace import Subspace

__all__ = [
    "CRITERIA",
    "Criterion",
    "Magnitude",
    "Medoids",
    "Obs",
    "Random",
    "Subspace",
    "Variance",
    "error_curve",
    "unexplained_variance",
]

CRITERIA: dict[str, Callable[[int], Criterion]] = {
    "obs": lambda _seed: Obs(),
    "snp": lambda _seed: Subspace(),
    "l1": lambda _seed: Magnitude(power=1),
    "l2": lambda _seed: Magnitude(power=2),
    "medoids": lambda _seed: Medoids(),
    "variance": lambda _seed: Variance(),
    "random": lambda seed: Random(seed),
}
"""Every criterion by its name on the command line; the factory takes the run's seed."""
