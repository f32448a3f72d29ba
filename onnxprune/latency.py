"""Measured latency of several models, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import Feed
from onnxprune.progress import shown
from onnxprune.runtime import ModelSource, Provider, Session

MIN_RUNS = 5  # of each model, however long they take


@dataclass(frozen=True)
class Latency:
    """Wall time of one run, in milliseconds.

    Attributes:
        median: of all runs.
        p90: 90th percentile.
        runs: how many there were.
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
    times: list[list[float]] = [[] for _ in sessions]
    deadline = time.perf_counter() + budget_seconds
    for done in shown(range(max(runs, 1)), "measuring latency", progress=progress):
        if done >= MIN_RUNS and time.perf_counter() > deadline:
            break
        for session, own in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(feed)
            own.append((time.perf_counter() - start) * 1000)
    return [
        Latency(float(np.median(own)), float(np.percentile(own, 90)), len(own)) for own in times
    ]
