"""Measured latency of several models, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from onnxprune.arrays import Feed, Vector
from onnxprune.interleaving import timed_in_turns
from onnxprune.model_source import ModelSource
from onnxprune.runtime import Provider, Session

DECIMALS = 5
"""Of the milliseconds that are kept of every run: clocks tell no more."""


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
    def of(cls, milliseconds: Sequence[float] | Vector, runs: int) -> Latency:
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
    sessions = [
        Session(model, provider=provider, threads=threads, deployed=True) for model in models
    ]
    timings = timed_in_turns(
        [partial(session.run, feed) for session in sessions],
        runs=runs,
        warmup=warmup,
        budget_seconds=budget_seconds,
        alone=provider == "cpu" and threads == 1,
        progress=progress,
    )
    return [Latency.of(timing.milliseconds, timing.runs) for timing in timings]
