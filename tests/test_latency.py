"""Interleaved timing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxprune import interleaving, latency
from onnxprune.interleaving import MIN_RUNS, Timing, ratio
from onnxprune.latency import interleaved_latency


def _product(size: int) -> bytes:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,{size}] x) => (float[N,{size}] y) {{ y = MatMul(x, w) }}"""
    )
    weight = np.full((size, size), 1 / size, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model.SerializeToString()


def test_runs_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[bytes] = []

    class Recorder:
        def __init__(self, model: bytes, **_: object) -> None:
            self._model = model

        def run(self, feed: object) -> None:
            order.append(self._model)

    monkeypatch.setattr(latency, "Session", Recorder)
    results = interleaved_latency([b"A", b"B"], {}, runs=7, warmup=2)
    assert order == [b"A", b"B"] * 9
    assert [result.runs for result in results] == [7, 7]


def test_times_are_plausible() -> None:
    feed = {"x": np.ones((64, 512), np.float32)}
    (result,) = interleaved_latency([_product(512)], feed, runs=11, warmup=2)
    assert result.runs == 11
    assert 0.01 < result.median <= result.p90 < 1000  # 34 MFLOP, in milliseconds


def test_budget_stops_early_but_not_too_early() -> None:
    feed = {"x": np.ones((1, 8), np.float32)}
    models = [_product(8)] * 2
    results = interleaved_latency(models, feed, runs=1000, warmup=0, budget_seconds=0.0)
    assert [result.runs for result in results] == [MIN_RUNS, MIN_RUNS]


class Clock:
    """Two clocks that a run moves: the wall's, and this thread's."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def thread_time(self) -> float:
        return self.cpu


def timed(monkeypatch: pytest.MonkeyPatch, waits: list[float], **how: object) -> float:
    """The median in milliseconds of runs of 4 ms that wait for their core, each so many ms."""
    clock, left = Clock(), list(waits)

    class Interrupted:
        def __init__(self, model: bytes, **_: object) -> None:
            pass

        def run(self, feed: object) -> None:
            clock.cpu += 0.004
            clock.wall += 0.004 + left.pop(0) / 1000

    monkeypatch.setattr(latency, "Session", Interrupted)
    monkeypatch.setattr(interleaving, "time", clock)
    (result,) = interleaved_latency([b""], {}, runs=len(waits), warmup=0, **how)
    assert result.runs == len(waits)
    return round(result.median, 6)


def test_runs_that_wait_for_their_core_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, [0.0] * MIN_RUNS + [5.0] * 20) == 4.0


def test_they_count_where_hardly_any_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, [0.0] * (MIN_RUNS - 1) + [5.0] * 20) == 9.0


def test_they_count_where_other_threads_work_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, [0.0] * MIN_RUNS + [5.0] * 20, threads=2) == 9.0


def timing(milliseconds: np.ndarray) -> Timing:
    return Timing(milliseconds / 1000, np.ones(milliseconds.size, np.bool_))


def test_the_interval_of_a_ratio_holds_the_true_one_and_shrinks_with_runs() -> None:
    """Drift that hits both alike widens the times a lot and the ratio hardly."""
    rng = np.random.default_rng(0)
    widths = []
    for runs in (40, 4000):
        drift = 1 + 0.5 * np.sin(np.linspace(0, 20, runs))
        first, other = (drift * rng.gamma(50, size / 50, runs) for size in (2.0, 1.0))
        found = ratio(timing(first), timing(other))
        assert found.low <= 0.5 <= found.high
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3
    assert widths[1] < 0.03


def test_slow_runs_after_interrupted_ones_count_against_neither() -> None:
    """Of two that are equal none comes out faster, however often other work comes between."""
    rng = np.random.default_rng(0)
    seconds = rng.gamma(100, 1e-5, 2 * 4000)
    interrupted = rng.random(seconds.size) < 0.3
    seconds[1:][interrupted[:-1]] *= 1.5  # caches are cold
    first, other = (Timing(seconds[place::2], ~interrupted[place::2]) for place in (0, 1))
    found = ratio(first, other)
    assert found.low < 1 < found.high
    assert found.high - found.low < 0.05


def test_a_ratio_looks_at_rounds_in_which_nothing_interrupted_either() -> None:
    first, other = np.full(20, 2.0), np.full(20, 1.0)
    first[:10] = 100.0
    quiet = Timing(first / 1000, np.arange(20) >= 10)
    found = ratio(quiet, timing(other))
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_the_record_of_runs_has_their_percentiles_and_durations() -> None:
    milliseconds = [float(run) for run in range(101)]
    found = latency.Latency.of(milliseconds[::-1], 120)
    assert (found.median, found.p90, found.p99, found.runs) == pytest.approx((50, 90, 99, 120))
    assert found.durations == pytest.approx(range(101))
    assert found.drawn_to == 100


def test_a_histogram_leaves_out_the_few_runs_that_took_much_longer() -> None:
    found = latency.Latency.of([*[10.0] * 10, *[11.0] * 88, 500.0, 900.0], 100)
    assert found.drawn_to == pytest.approx(12)
