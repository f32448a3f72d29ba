"""Measured latency of several models, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxprune.arrays import Feed
from onnxprune.interleaving import timed_in_turns
from onnxprune.runtime import ModelSource, Provider, Session


@dataclass(frozen=True)
class Latency:
    """Wall time of one run, in milliseconds, of those that nothing interrupted.

    Attributes:
        median: of these runs.
        p90: their 90th percentile.
        runs: how many there were in all.
    """

    median: float
    p90: float
    runs: int


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
    timings = timed_in_turns(
        [partial(session.run, feed) for session in sessions],
        runs=runs,
        warmup=warmup,
        budget_seconds=budget_seconds,
        alone=provider == "cpu" and threads == 1,
        progress=progress,
    )
    return [
        Latency(float(np.median(own)), float(np.percentile(own, 90)), timing.runs)
        for timing in timings
        for own in [timing.milliseconds]
    ]
