"""How long kernels take: onnxruntime's own record of a model's runs.

A kernel's time leaves out what surrounds it: a micro model's copies of tensors into the blocked
layout and back are kernels of their own, which the layer does not have between its neighbours.
On a GPU kernels are only launched when onnxruntime takes their time; there whole runs count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from time import perf_counter, thread_time

import numpy as np
import onnx

from onnxprune.arrays import Feed
from onnxprune.model_source import ModelSource
from onnxprune.profile_events import recording
from onnxprune.runtime import Provider, Session

REORDERS = ("ReorderInput", "ReorderOutput")
"""Operators that carry a tensor into the blocked layout and back."""

WARMUP = 2
MIN_RUNS, MAX_RUNS = 5, 60
SECONDS = 0.02
"""Runs of one layer: no further one starts after this long, once there are 5."""
WHOLE_SECONDS = 2.0
"""The same for a whole model."""

CACHE_BYTES = 2**25
"""So many bytes of weights do not stay in a processor's caches; reading as many drives them out."""

FASTEST = 5
"""One run in so many counts: other work on the machine only adds to times."""

Clock = Callable[[], float]
Kernel = tuple[str, str]
"""Name and operator."""

BETWEEN = ("", "")
"""Stands for what passes between the kernels of a run, among names and operators of kernels."""


@dataclass(frozen=True)
class Kernels:
    """One run of a model, in milliseconds.

    Attributes:
        times: name of a kernel -> its time.
        rest: what passes between the kernels.
        wall: the whole run, without a record of its kernels; longer than the sum of the others
            where other work interrupts runs but few of the kernels, shorter by what recording adds.
    """

    times: dict[str, float]
    rest: float
    wall: float


def kernel_times(
    model: ModelSource,
    feed: Feed,
    *,
    provider: Provider = "cpu",
    threads: int | None = 1,
    seconds: float = WHOLE_SECONDS,
) -> Kernels:
    """Runs a model and reads how long each of its kernels took.

    Runs with and without a record take turns, so that other work on the machine slows both alike.
    On a GPU only the whole run has a time.

    Args:
        model: the model.
        feed: the input of every run.
        provider: where it runs.
        threads: threads within one operator; None leaves the choice to onnxruntime.
        seconds: no further run starts after this long, once there are 5.

    Raises:
        OnnxPruneError: the model does not run, or onnxruntime's record cannot be read.
    """
    plain = Session(model, provider=provider, threads=threads, deployed=True)
    if provider != "cpu":
        wall = fastest(_turns([plain], feed, seconds, perf_counter)[0])
        return Kernels({}, wall, wall)
    with _recording(model, provider, threads) as (observed, durations):
        walls = _turns([plain, observed], feed, seconds, _clock(provider, threads))[0]
    times = _without_recording(durations)
    rest = times.pop(BETWEEN, 0.0)
    return Kernels({name: time for (name, _), time in times.items()}, rest, fastest(walls))


def layer_time(
    model: ModelSource, feed: Feed, *, threads: int | None = 1, cold: bool = False
) -> float:
    """Milliseconds of the kernels of a model on the CPU, copies between layouts left out.

    Args:
        model: the model.
        feed: the input of every run.
        threads: threads within one operator; None leaves the choice to onnxruntime.
        cold: whether its weights have left the processor's caches before every run, as they have
            in a network that does not fit in there.
    """
    with _recording(model, "cpu", threads) as (observed, durations):
        (runs,) = _turns([observed], feed, SECONDS, _clock("cpu", threads), cold=cold)
    times = _without_recording(durations)
    everything = sum(times.values())
    own = sum(t for kernel, t in times.items() if kernel != BETWEEN and kernel[1] not in REORDERS)
    # Other work interrupts long kernels in every run; their share of the thread's time stays.
    return min(own, fastest(runs) * own / everything) if everything else 0.0


def _without_recording(durations: Mapping[Kernel, Sequence[float]]) -> dict[Kernel, float]:
    """The time of every kernel, less what recording it adds."""
    added = recording_time()
    times = {kernel: fastest(own[WARMUP:]) for kernel, own in durations.items()}
    return {k: t if k == BETWEEN else max(t - added, 0.0) for k, t in times.items()}


@cache
def recording_time() -> float:
    """Milliseconds that recording adds to every kernel: those of one that has nothing to do."""
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "least", [x], [y])
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=7)
    with _recording(model, "cpu", 1) as (observed, durations):
        _turns([observed], {"x": np.ones(1, np.float32)}, SECONDS, perf_counter)
    return fastest([t for kernel, own in durations.items() if kernel != BETWEEN for t in own])


def device_time(model: ModelSource, *, provider: Provider) -> float:
    """Milliseconds of a whole run of a model without inputs, as its nodes are written."""
    session = Session(model, provider=provider, optimization="none", deployed=True)
    return fastest(_turns([session], {}, SECONDS, perf_counter)[0])


def fastest(times: Sequence[float]) -> float:
    """Mean of the fastest fifth of some times: a mean is finer than the clock's microsecond."""
    ordered = np.sort(np.asarray(times, np.float64))
    return float(ordered[: -(-len(ordered) // FASTEST)].mean()) if len(ordered) else 0.0


@contextmanager
def _recording(
    model: ModelSource, provider: Provider, threads: int | None
) -> Iterator[tuple[Session, dict[Kernel, list[float]]]]:
    """A session, and the times of its kernels by name and operator once the block ends."""
    durations: dict[Kernel, list[float]] = defaultdict(list)
    with recording(model, provider, threads) as (session, events):
        yield session, durations
    inside = 0.0
    for event in events:
        if event.name is not None:
            durations[event.name, event.op].append(event.time)
            inside += event.time
        else:
            durations[BETWEEN].append(max(event.time - inside, 0.0))
            inside = 0.0


def _clock(provider: Provider, threads: int | None) -> Clock:
    """A single thread on the CPU never waits: its own time is that of a run nobody interrupts."""
    return thread_time if provider == "cpu" and threads == 1 else perf_counter


def _turns(
    sessions: Sequence[Session], feed: Feed, seconds: float, clock: Clock, *, cold: bool = False
) -> list[list[float]]:
    """Milliseconds of some runs of every session, in turns, without those that warm up."""
    filler = np.ones(CACHE_BYTES if cold else 0, np.int8).view(np.int64)
    times: list[list[float]] = [[] for _ in sessions]
    end = perf_counter() + seconds
    for done in range(WARMUP + MAX_RUNS):
        if done >= WARMUP + MIN_RUNS and perf_counter() > end:
            break
        for session, own in zip(sessions, times, strict=True):
            filler.sum()
            start = clock()
            session.run(feed)
            own.append((clock() - start) * 1000)
    return [own[WARMUP:] for own in times]
