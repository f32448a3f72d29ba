"""What a criterion is: a group problem in, a ranking of its units out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from onnxprune.layer_problem import GroupProblem
from onnxprune.ranking import Ranking

Moments = Literal["covariance", "correlation"]
"""Second moments of the channels as they are, or scaled to variance 1."""


@dataclass(frozen=True)
class Settings:
    """What a run may say about its criterion.

    Attributes:
        seed: of random choices.
        order: in ``ORDERS``, for ``snp``.
        moments: what ``squeeze`` looks at.
    """

    seed: int = 0
    order: str = "zca"
    moments: Moments = "covariance"


class Criterion(Protocol):
    """Orders the units of a channel group and prices every count.

    Implementations are frozen dataclasses that hold hyper-parameters only. They leave the problem
    unchanged, and equal problems give equal rankings.
    """

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks the units of one group, most important first."""
        ...
