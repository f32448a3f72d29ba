"""Learning rates over the course of a training."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.train.schedule import SCHEDULES

PLACES = np.linspace(0, 1, 201)


def rates(name: str, warmup: float = 0.1) -> np.ndarray:
    return np.array([SCHEDULES[name](float(place), warmup) for place in PLACES])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_largest_rate_is_reached_and_never_exceeded(name: str) -> None:
    assert rates(name).max() == pytest.approx(1, abs=1e-3)
    assert rates(name).min() >= 0


def test_the_cosine_rises_in_a_line_and_falls_to_nothing() -> None:
    found = rates("cosine")
    assert found[0] == 0
    assert found[10] == pytest.approx(0.5)
    assert found[20] == pytest.approx(1)
    assert found[110] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0)
    assert rates("cosine", 0.0)[0] == 1


def test_one_cycle_rises_and_falls() -> None:
    found = rates("onecycle")
    peak = int(found.argmax())
    assert PLACES[peak] == pytest.approx(0.3)
    assert found[0] == pytest.approx(1 / 25)
    assert found[-1] < 1e-4
    assert (np.diff(found[: peak + 1]) > 0).all()
    assert (np.diff(found[peak:]) < 0).all()


def test_constant_is_constant() -> None:
    assert (rates("constant") == 1).all()
