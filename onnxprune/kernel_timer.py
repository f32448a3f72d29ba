"""Times layers, each once: also over several runs of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import onnx

from onnxprune.arrays import Feed
from onnxprune.kernel_times import Kernels, device_time, kernel_times, layer_time
from onnxprune.micro_model import MicroModel
from onnxprune.runtime import Provider
from onnxprune.timing_cache import TimingCache


class Timer(Protocol):
    """Times layers and whole models."""

    timed: int
    """Layers timed so far, those that were known left out."""

    def whole(self, model: onnx.ModelProto, feed: Feed) -> Kernels:
        """The kernels of a model."""
        ...

    def layers(self, models: Sequence[MicroModel]) -> list[float]:
        """Milliseconds that each of some layers takes."""
        ...


class KernelTimer:
    """Accumulator: the timings of onnxruntime's kernels on one provider.

    Args:
        provider: where models run.
        threads: threads within one operator; None leaves the choice to onnxruntime.
        cache: what has been timed before.
    """

    def __init__(self, provider: Provider, threads: int | None, cache: TimingCache) -> None:
        self._provider = provider
        self._threads = threads
        self._cache = cache
        self.timed = 0

    def whole(self, model: onnx.ModelProto, feed: Feed) -> Kernels:
        """The kernels of a model."""
        return kernel_times(model, feed, provider=self._provider, threads=self._threads)

    def layers(self, models: Sequence[MicroModel]) -> list[float]:
        """Milliseconds that each of some layers takes, from the cache where it knows them."""
        times = []
        for model in models:
            known = self._cache.get(model.key)
            if known is None:
                known = self._measure(model)
                self._cache.put(model.key, known)
                self.timed += 1
            times.append(known)
        self._cache.save()
        return times

    def _measure(self, model: MicroModel) -> float:
        if self._provider != "cpu":
            return device_time(model.device_proto(), provider=self._provider)
        return layer_time(model.proto(), model.feed(), threads=self._threads, cold=model.cold)
