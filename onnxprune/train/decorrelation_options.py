"""Settings of decorrelated backpropagation. Nothing here needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Loss = Literal["standard", "normalised"]

RATE, KAPPA = 1e-3, 0.01
TRIANGULAR_RATE = 0.005
"""Steps of a triangular transform are relative."""
SHARE, POINTS = 0.1, 16


@dataclass(frozen=True)
class DecorrelationOptions:
    """How layers are decorrelated.

    Attributes:
        rate: eps of the local rule; None for ``RATE``, or ``TRIANGULAR_RATE``.
        kappa: how much unit second moments count beside no correlations, from 0 to 1; None for
            ``KAPPA``, or 0 of a triangular transform.
        loss: which decorrelation loss is measured and lessened (see ``decorrelating_rule``).
        triangular: whether R is lower triangular, over plain channels.
        share: of the samples of a batch that R learns from.
        points: positions of each of them.
        layers: regular expression; only layers whose node it finds are decorrelated. None for all.

    Raises:
        ValueError: the settings make no sense.
    """

    rate: float | None = None
    kappa: float | None = None
    loss: Loss = "standard"
    triangular: bool = False
    share: float = SHARE
    points: int = POINTS
    layers: str | None = None

    def __post_init__(self) -> None:
        if not self.eps >= 0:
            raise ValueError(f"the decorrelation rate is at least 0, not {self.eps:g}")
        if not 0 <= self.whitening <= 1:
            raise ValueError(f"kappa is a share, from 0 to 1, not {self.whitening:g}")
        if self.triangular and self.whitening:
            raise ValueError("a triangular transform keeps its unit diagonal: kappa has to be 0")
        if self.loss not in get_args(Loss):
            raise ValueError(f"the loss is {' or '.join(get_args(Loss))}, not '{self.loss}'")
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of a batch is above 0 and at most 1, not {self.share:g}")
        if self.points < 1:
            raise ValueError(f"at least 1 position of a sample is needed, not {self.points}")
        try:
            re.compile(self.layers or "")
        except re.error as error:
            raise ValueError(f"'{self.layers}' is not a regular expression: {error}") from error

    @property
    def eps(self) -> float:
        """The rate itself."""
        if self.rate is None:
            return TRIANGULAR_RATE if self.triangular else RATE
        return self.rate

    @property
    def whitening(self) -> float:
        """Kappa itself."""
        if self.kappa is None:
            return 0.0 if self.triangular else KAPPA
        return self.kappa

    def selects(self, node: str) -> bool:
        """Whether a layer is decorrelated."""
        return self.layers is None or re.search(self.layers, node) is not None
