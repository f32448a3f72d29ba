"""What a criterion is: a group problem in, a ranking of its units out."""

from __future__ import annotations

from typing import Protocol

from onnxprune.plan import GroupProblem, Ranking


class Criterion(Protocol):
    """Orders the units of a channel group and prices every count.

    Implementations are frozen dataclasses that hold hyper-parameters only. They leave the problem
    unchanged, and equal problems give equal rankings.
    """

    def rank(self, problem: GroupProblem) -> Ranking:
        """Ranks the units of one group, most important first."""
        ...
