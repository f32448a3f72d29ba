"""Latency of one or several models on one or several providers, at several batch sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from onnxprune.arrays import Feed
from onnxprune.bench_inputs import Inputs, RandomInputs, check_shapes
from onnxprune.benchmark_record import Benchmark, BenchRow, Placed
from onnxprune.errors import OnnxPruneError
from onnxprune.interleaving import ratio, timed_in_turns
from onnxprune.model import load
from onnxprune.peak_memory import peak_memory
from onnxprune.placement import placement
from onnxprune.runtime import VERSION, Provider, Session

SECONDS = 3.0
"""How long each model is timed at each batch size, unless a number of runs is asked for."""
MAX_RUNS = 10_000


@dataclass(frozen=True)
class BenchOptions:
    """How models are timed.

    Attributes:
        batches: samples in one run; None for as many as a model is fixed to, or 1.
        providers: where the models run.
        threads: threads within one operator; 0 leaves the choice to onnxruntime.
        runs: how often each model is timed; None for as often as the time allows.
        seconds: about how long each model is timed at each batch size; None for no limit if
            ``runs`` is given, and else for ``SECONDS``.
        warmup: untimed runs before.
        memory: whether peak memory is measured, on the CPU.
        progress: whether to show a bar.
    """

    batches: Sequence[int | None] = (None,)
    providers: Sequence[Provider] = ("cpu",)
    threads: int = 1
    runs: int | None = None
    seconds: float | None = None
    warmup: int = 10
    memory: bool = False
    progress: bool = False

    @property
    def budget(self) -> float:
        """Seconds for each model and batch size."""
        if self.seconds is None:
            return SECONDS if self.runs is None else math.inf
        return self.seconds

    @property
    def intra_threads(self) -> int | None:
        """Threads as sessions take them."""
        return self.threads or None


@dataclass(frozen=True)
class Subject:
    """One model on one provider.

    Attributes:
        name: the model's path, as it was given.
        model: the model.
        provider: where it runs.
        session: runs it.
    """

    name: str
    model: onnx.ModelProto
    provider: Provider
    session: Session


def benchmark(paths: Sequence[Path], inputs: Inputs, options: BenchOptions) -> Benchmark:
    """Times models in turns: A B A B ..., so that drift of the machine hits all alike.

    A run takes its inputs from memory of the processor and leaves its outputs there: on a GPU it
    includes the copies.

    Args:
        paths: the models.
        inputs: what they run on.
        options: how they are timed.

    Raises:
        OnnxPruneError: a model cannot be read or run, or a provider is not there.
    """
    models = {str(path): load(path) for path in paths}
    if isinstance(inputs, RandomInputs):
        check_shapes(inputs.shapes, models)
    subjects = [
        Subject(
            str(path),
            models[str(path)],
            provider,
            Session(path, provider=provider, threads=options.intra_threads, deployed=True),
        )
        for provider in options.providers
        for path in paths
    ]
    rows: list[BenchRow] = []
    placed: list[Placed] = []
    for batch in options.batches:
        feeds = [_feed(subject, inputs, batch) for subject in subjects]
        rows += _timed(subjects, feeds, options)
        placed = placed or list(_placed(subjects, feeds, options))
    settings = {
        "providers": list(options.providers),
        "threads": options.threads,
        "warmup": options.warmup,
        "runs": options.runs,
        "seconds": None if math.isinf(options.budget) else options.budget,
        "onnxruntime": VERSION,
    }
    return Benchmark(settings, rows, placed)


def _feed(subject: Subject, inputs: Inputs, batch: int | None) -> Feed:
    """What the subject is timed on; it has run on it once."""
    feed = inputs.feed(subject.model, batch, subject.name)
    try:
        subject.session.run(feed)
    except OnnxPruneError as error:
        raise OnnxPruneError(f"{subject.name}: {error}; {inputs.advice}") from error
    return feed


def _timed(
    subjects: Sequence[Subject], feeds: Sequence[Feed], options: BenchOptions
) -> Iterator[BenchRow]:
    timings = timed_in_turns(
        [partial(s.session.run, feed) for s, feed in zip(subjects, feeds, strict=True)],
        runs=options.runs or MAX_RUNS,
        warmup=options.warmup,
        budget_seconds=options.budget * len(subjects),
        alone=options.threads == 1 and set(options.providers) == {"cpu"},
        progress=options.progress,
    )
    first = _batch(feeds[0])
    for subject, feed, timing in zip(subjects, feeds, timings, strict=True):
        comparable = timing is not timings[0] and _batch(feed) == first
        memory = None
        if options.memory and subject.provider == "cpu":
            memory = peak_memory(Path(subject.name), feed, options.intra_threads)
        yield BenchRow(
            subject.name,
            subject.provider,
            _batch(feed),
            timing,
            ratio(timings[0], timing) if comparable else None,
            memory,
        )


def _placed(
    subjects: Sequence[Subject], feeds: Sequence[Feed], options: BenchOptions
) -> Iterator[Placed]:
    for subject, feed in zip(subjects, feeds, strict=True):
        found = placement(
            Path(subject.name), feed, provider=subject.provider, threads=options.intra_threads
        )
        yield Placed(subject.name, subject.provider, found)


def _batch(feed: Feed) -> int:
    """Samples in a feed."""
    return next((len(array) for array in feed.values() if array.ndim), 1)
