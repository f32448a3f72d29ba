"""Small matrices get one thread, wide ones all, and afterwards everything is as it was."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl
from small_networks import MODELS

from onnxprune import Options, Target, blas_threads, prune
from onnxprune.blas_threads import WIDE, one_thread, threads_for
from onnxprune.recovery import FixedRidge

STARTED_WITH = 3


def threads() -> set[int]:
    """The numbers of threads of all linear algebra libraries."""
    found = threadpoolctl.threadpool_info()
    return {library["num_threads"] for library in found if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """A process that was started with three threads."""
    monkeypatch.setattr(blas_threads, "_STARTED_WITH", STARTED_WITH)
    with threadpoolctl.threadpool_limits(STARTED_WITH, user_api="blas"):
        yield


def test_wide_matrices_get_all_threads_and_others_one():
    with one_thread():
        assert threads() == {1}
        with threads_for(WIDE):
            assert threads() == {STARTED_WITH}
        with threads_for(WIDE - 1):
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {STARTED_WITH}


def test_an_error_gives_the_threads_back():
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert threads() == {STARTED_WITH}


def pruned_watching(monkeypatch) -> set[int]:
    """The threads seen while consumers are solved for a trial."""
    seen: set[int] = set()
    solve = FixedRidge.solve

    def watched(self, problem, keep):
        seen.update(threads())
        return solve(self, problem, keep)

    monkeypatch.setattr(FixedRidge, "solve", watched)
    samples = np.load(MODELS / "digits_calib.npz")
    feed = {name: samples[name][:100] for name in samples.files}
    prune(MODELS / "mlp_digits.onnx", feed, Target("macs", 0.5), options=Options(latency=False))
    return seen


def test_a_run_solves_small_problems_on_one_thread(monkeypatch):
    assert pruned_watching(monkeypatch) == {1}
    assert threads() == {STARTED_WITH}


@pytest.mark.slow
def test_a_run_solves_wide_problems_on_all(monkeypatch):
    monkeypatch.setattr(blas_threads, "WIDE", 2)
    assert pruned_watching(monkeypatch) == {STARTED_WITH}
