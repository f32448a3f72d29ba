"""Methods: named compositions of a criterion, an allocation and a recovery."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.merging import Merging
from onnxprune.reconstruction import ChannelMix, Reconstruction
from onnxprune.recovery import LeastSquares, NoRecovery, Recovery

RECOVERIES: dict[str, Recovery] = {
    "least-squares": LeastSquares(),
    "channel-mix": ChannelMix(),
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
    """

    criterion: str
    allocation: str
    recovery: str
    sequential: bool = False


METHODS: dict[str, Method] = {
    "onnxprune": Method("obs", "sensitivity", "least-squares", sequential=True),
    "snp": Method("snp", "cumvar", "channel-mix"),
    "l1": Method("l1", "uniform", "none"),
    "grail": Method("l1", "uniform", "reconstruction"),
    "fold": Method("medoids", "uniform", "merging"),
}
"""Every method by its name on the command line.

The default, then others without training, as far as these parts make them: Subspace Node Pruning
(arXiv 2405.17506), filters by their norm (arXiv 1608.08710), ridge reconstruction of channels by
norm (GRAIL, arXiv 2602.23795) and merged clusters (model folding, arXiv 2502.10216). What they cut,
their statistics and the grouping are this package's.
"""
