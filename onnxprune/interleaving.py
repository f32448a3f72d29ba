"""Timing in turns, A B A B ..., so that drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, Vector
from onnxprune.progress import shown

MIN_RUNS = 5  # of each, however long they take

INTERRUPTED = 1.1
"""Wall time of a run on one thread relative to its CPU time, from which it was interrupted.

On a busy core long runs are interrupted more often than short ones, so that a smaller model would
seem faster than it is.
"""
BLOCKS = 25
"""Neighbouring runs are drawn together, in so many blocks: what slows one slows the next, too."""
RESAMPLES = 200
COVERAGE = (2.5, 97.5)


@dataclass(frozen=True)
class Timing:
    """The runs of one of those that took turns.

    Attributes:
        seconds: wall time of every run, in the order they were made, shape (runs,).
        counts: which of them count, since nothing interrupted them, shape (runs,).
    """

    seconds: Vector
    counts: NDArray[np.bool_]

    @property
    def runs(self) -> int:
        """How many there were in all."""
        return int(self.seconds.size)

    @property
    def milliseconds(self) -> Vector:
        """The runs that count."""
        counted: Vector = 1000 * self.seconds[self.counts]
        return counted


@dataclass(frozen=True)
class Ratio:
    """A median time relative to another.

    Attributes:
        value: the ratio.
        low: the end of the interval that 95 % of resamples of the runs lie in.
        high: its other end.
    """

    value: float
    low: float
    high: float


def timed_in_turns(
    calls: Sequence[Callable[[], object]],
    *,
    runs: int,
    warmup: int,
    budget_seconds: float,
    alone: bool,
    progress: bool = False,
) -> list[Timing]:
    """Times some functions in turns.

    Args:
        calls: the functions.
        runs: how often each is timed, unless time runs out.
        warmup: untimed runs before.
        budget_seconds: no further round starts after this long, once each has 5 runs.
        alone: whether all work is done on the calling thread. Runs in which it had to wait for its
            core do not count then, as long as each function has 5 others.
        progress: whether to show a bar.

    Returns:
        One record for each function, in order.
    """
    for _ in range(warmup):
        for call in calls:
            call()
    walls: list[list[float]] = [[] for _ in calls]
    busy: list[list[float]] = [[] for _ in calls]
    deadline = time.perf_counter() + budget_seconds
    for done in shown(range(max(runs, 1)), "measuring latency", progress=progress):
        if done >= MIN_RUNS and time.perf_counter() > deadline:
            break
        for call, wall, cpu in zip(calls, walls, busy, strict=True):
            start, own = time.perf_counter(), time.thread_time()
            call()
            wall.append(time.perf_counter() - start)
            cpu.append(time.thread_time() - own)
    seconds, used = np.array(walls, np.float64), np.array(busy, np.float64)
    counts = seconds <= INTERRUPTED * used
    if not alone or counts.sum(axis=1).min(initial=MIN_RUNS) < MIN_RUNS:
        counts = np.ones_like(counts)
    return [Timing(*row) for row in zip(seconds, counts, strict=True)]


def ratio(first: Timing, other: Timing) -> Ratio:
    """How long ``other`` takes relative to ``first``, which took turns with it.

    The interval is that of a bootstrap over blocks of rounds, the same ones for both. Of a block
    all runs of a model that count are taken, not only those of rounds in which both do: the run
    after an interrupted one is slow, and would come up for one of them more often.
    """
    both = np.stack([np.where(t.counts, t.seconds, np.nan) for t in (first, other)])
    length = -(-both.shape[1] // BLOCKS)
    blocks = both[:, : both.shape[1] // length * length].reshape(2, -1, length)
    blocks = blocks[:, np.isfinite(blocks).any(axis=2).all(axis=0)]
    value = _median(other) / _median(first)
    count = blocks.shape[1]
    if count == 0:
        return Ratio(value, 0.0, float("inf"))
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    medians = np.nanmedian(blocks[:, drawn].reshape(2, RESAMPLES, -1), axis=2)
    low, high = np.percentile(medians[1] / medians[0], COVERAGE).tolist()
    return Ratio(value, min(low, value), max(high, value))


def _median(timing: Timing) -> float:
    values: Array = timing.milliseconds
    return float(np.median(values))
