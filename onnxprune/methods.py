"""Methods: named compositions of a criterion, an allocation and a recovery."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.alignment import Align
from onnxprune.channel_regression import Affine, Triangular
from onnxprune.least_squares import LeastSquares
from onnxprune.merging import Merging
from onnxprune.reconstruction import Reconstruction
from onnxprune.recovery import NoRecovery, Recovery

RECOVERIES: dict[str, Recovery] = {
    "least-squares": LeastSquares(),
    "triangular": Triangular(),
    "affine": Affine(),
    "reconstruction": Reconstruction(),
    "merging": Merging(),
    "none": NoRecovery(),
}
"""Every recovery by its name."""


@dataclass(frozen=True)
class Method:
    """Parts that go together, each by its name.

    Attributes:
        criterion: in ``CRITERIA``.
        allocation: in ``ALLOCATIONS``.
        recovery: in ``RECOVERIES``.
        sequential: whether consumers are recovered in order, each on the pruned network's inputs.
        patches: whether convolutions are seen with what each tap reads, or through the moments of
            plain channels, which all taps share.
        align: channel counts are multiples of this (see ``alignment``).
    """

    criterion: str
    allocation: str
    recovery: str
    sequential: bool = False
    patches: bool = True
    align: Align = 1


METHODS: dict[str, Method] = {
    "onnxprune": Method("obs", "sensitivity", "least-squares", sequential=True, align="auto"),
    "snp": Method("snp", "cumvar", "triangular", patches=False),
    "squeeze": Method("squeeze", "information", "affine", patches=False),
    "l1": Method("l1", "uniform", "none"),
    "grail": Method("l1", "uniform", "reconstruction"),
    "fold": Method("medoids", "uniform", "merging"),
}
"""Every method by its name on the command line.

The default, then Subspace Node Pruning (arXiv 2405.17506) and Squeezing Correlated Neurons (ECML
PKDD 2020), then others without training as far as these parts make them: filters by their norm
(arXiv 1608.08710), ridge reconstruction of channels by norm (GRAIL, arXiv 2602.23795) and merged
clusters (model folding, arXiv 2502.10216). What these cut, their statistics and the grouping are
this package's.
"""
