"""A pass gives the same bytes whoever computes the partials, and whenever they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from onnxprune.executor import Executor, InProcess


class Shuffled:
    """Computes the partials in a random order, as workers would; reduces them in shard order."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def map_reduce(
        self,
        task: Callable[[int, Any], Any],
        shards: Iterable[Any],
        merge: Callable[[Any, Any], Any],
        initial: Any,
        *,
        label: str = "",
        count: int | None = None,
    ) -> Any:
        waiting = list(shards)
        done = {int(i): task(int(i), waiting[i]) for i in self._rng.permutation(len(waiting))}
        total = initial
        for number in range(len(waiting)):
            total = merge(total, done[number])
        return total


def _sum(executor: Executor) -> np.ndarray:
    rng = np.random.default_rng(5)
    # of wildly different sizes, so that the order of the additions shows in the sum
    shards = [rng.standard_normal((4, 4)) * 10.0**e for e in rng.integers(-8, 8, 40)]
    return executor.map_reduce(
        lambda number, shard: shard * number, shards, np.add, np.zeros((4, 4))
    )


@pytest.mark.parametrize("seed", range(3))
def test_result_does_not_depend_on_completion_order(seed: int) -> None:
    assert _sum(Shuffled(seed)).tobytes() == _sum(InProcess()).tobytes()


def test_the_order_would_show() -> None:
    class Reducing(Shuffled):  # reduces in completion order: what an executor must not do
        def map_reduce(self, task: Any, shards: Any, merge: Any, initial: Any, **_: Any) -> Any:
            waiting = list(shards)
            total = initial
            for i in self._rng.permutation(len(waiting)):
                total = merge(total, task(int(i), waiting[i]))
            return total

    assert _sum(Reducing(0)).tobytes() != _sum(InProcess()).tobytes()


def test_in_process_holds_one_shard_at_a_time() -> None:
    events: list[str] = []

    def shards() -> Iterator[int]:
        for i in range(3):
            events.append(f"read {i}")
            yield i

    def task(number: int, shard: int) -> int:
        events.append(f"map {number}")
        return shard

    def merge(total: int, partial: int) -> int:
        events.append(f"merge {partial}")
        return total + partial

    assert InProcess().map_reduce(task, shards(), merge, 10) == 13
    assert events == [f"{verb} {i}" for i in range(3) for verb in ("read", "map", "merge")]


def test_no_shards_give_the_initial_total() -> None:
    assert InProcess().map_reduce(lambda n, s: s, [], lambda t, p: t + p, 7) == 7


def test_no_bar_off_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    InProcess().map_reduce(lambda n, s: s, range(5), lambda t, p: t + p, 0, label="pass", count=5)
    assert capfd.readouterr() == ("", "")
