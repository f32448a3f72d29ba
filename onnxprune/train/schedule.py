"""Learning rates as a function of how much of the training is done.

A share of the training and not a number of steps, so that time may be what limits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

RISE = 0.3
"""Share of a one-cycle training in which the rate rises."""
FIRST, LAST = 1 / 25, 1e-5
"""Rates at which one cycle starts and ends, as shares of the largest (Smith & Topin 2017)."""


def cosine(done: float, warmup: float) -> float:
    """Rising in a line over the warm-up, then falling to 0 as a cosine does."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def one_cycle(done: float, warmup: float) -> float:
    """One rise and one fall, each half a cosine."""
    if done < RISE:
        return _between(FIRST, 1.0, done / RISE)
    return _between(1.0, LAST, (done - RISE) / (1 - RISE))


def constant(done: float, warmup: float) -> float:
    """The same all the time."""
    return 1.0


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": cosine,
    "onecycle": one_cycle,
    "constant": constant,
}
"""Given the share of the training that is done and that of the warm-up, the share of the rate."""
