"""Measured latency of several models, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.arrays import Feed
from onnxprune.progress import shown
from onnxprune.runtime import ModelSource, Provider, Session

MIN_RUNS = 5  # of each model, however long they take

INTERRUPTED = 1.1
"""Wall time of a run on one thread relative to its CPU time, from which it was interrupted.

On a busy core long runs are interrupted more often than short ones, so that a smaller model would
seem faster than it is.
"""

DECIMALS = 5
"""Of the milliseconds that are kept of every run: clocks tell no more."""

_Run = tuple[float, float]
"""Wall time and the thread's CPU time of a run, in seconds."""


@dataclass(frozen=True)
class Latency:
    """Wall time of one run, in milliseconds, of those that nothing interrupted.

    Attributes:
        median: of these runs.
        p90: their 90th percentile.
        p99: their 99th percentile.
        runs: how many there were in all.
        durations: of these runs, rising.
    """

    median: float
    p90: float
    p99: float
    runs: int
    durations: Sequence[float] = field(default=(), repr=False)

    @classmethod
    def of(cls, milliseconds: Sequence[float], runs: int) -> Latency:
        """The record of the runs that count, of so many in all."""
        durations = np.sort(np.asarray(milliseconds, np.float64))
        median, p90, p99 = np.percentile(durations, (50, 90, 99)).tolist()
        return cls(median, p90, p99, runs, durations.round(DECIMALS).tolist())

    @property
    def drawn_to(self) -> float:
        """Where a histogram of the durations may end, in milliseconds: few lie far beyond."""
        if not self.durations:
            return self.p90
        return min(2 * self.p90 - self.durations[0], self.durations[-1])


def interleaved_latency(
    models: Sequence[ModelSource],
    feed: Feed,
    *,
    runs: int = 100,
    warmup: int = 5,
    threads: int | None = 1,
    provider: Provider = "cpu",
    budget_seconds: float = 5.0,
    progress: bool = False,
) -> list[Latency]:
    """Times models on one feed, in turns: A B A B ..., so that drift of the machine hits all.

    On one thread of the CPU, runs in which the thread had to wait for its core do not count, as
    long as each model has 5 others.

    Args:
        models: the models; all take the feed.
        feed: the input of every run.
        runs: how often each model is timed, unless time runs out.
        warmup: untimed runs before.
        threads: threads within one operator; None leaves the choice to onnxruntime.
        provider: where the models run.
        budget_seconds: no further round starts after this long, once each model has 5 runs.
        progress: whether to show a bar.

    Returns:
        One record for each model, in order.
    """
    sessions = [Session(model, provider=provider, threads=threads) for model in models]
    for _ in range(warmup):
        for session in sessions:
            session.run(feed)
    times: list[list[_Run]] = [[] for _ in sessions]
    deadline = time.perf_counter() + budget_seconds
    for done in shown(range(max(runs, 1)), "measuring latency", progress=progress):
        if done >= MIN_RUNS and time.perf_counter() > deadline:
            break
        for session, own in zip(sessions, times, strict=True):
            start, cpu = time.perf_counter(), time.thread_time()
            session.run(feed)
            own.append((time.perf_counter() - start, time.thread_time() - cpu))
    counted = [[wall for wall, cpu in own if wall <= INTERRUPTED * cpu] for own in times]
    alone = provider == "cpu" and threads == 1
    if not alone or min(map(len, counted), default=0) < MIN_RUNS:
        counted = [[wall for wall, _ in own] for own in times]
    return [
        Latency.of([1000 * wall for wall in own], len(every))
        for own, every in zip(counted, times, strict=True)
    ]
