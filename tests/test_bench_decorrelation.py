"""What the tables of decorrelated training say of curves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from decorrelation_tables import (
    ACCURACY,
    TRAIN_LOSS,
    level,
    tables,
    time_to,
    tried,
)


def row(method: str, losses: list[float], accuracies: list[float], seed: int = 0) -> dict:
    """A training of two seconds an epoch."""
    curve = [[0, 0.0, None, 2.3, 0.1]]
    values = zip(losses, accuracies, strict=True)
    curve += [[n, 2.0 * n, loss, 1.0, share] for n, (loss, share) in enumerate(values, 1)]
    return {
        "part": "training", "network": "mlp", "method": method, "seed": seed, "curve": curve,
        "pruned": {"1": 50.0, "0.5": 40.0},
    }  # fmt: skip


SLOW = row("backprop", [2.0, 1.5, 1.2, 1.0], [0.2, 0.4, 0.5, 0.45])
FAST = row("decorrelated", [1.6, 1.1, 0.7, 0.6], [0.3, 0.6, 0.5, 0.7])


def test_levels_are_what_both_have_reached() -> None:
    assert level([SLOW, FAST], 0, TRAIN_LOSS, 1.0) == 1.0
    assert level([SLOW, FAST], 0, ACCURACY, -1.0) == -0.5


def test_between_epochs_curves_are_straight() -> None:
    assert time_to(1.0, SLOW, TRAIN_LOSS, 1.0) == (4.0, 8.0)
    assert time_to(1.0, FAST, TRAIN_LOSS, 1.0) == pytest.approx((2.25, 4.5))
    assert time_to(-0.5, SLOW, ACCURACY, -1.0) == pytest.approx((3.0, 6.0))
    assert time_to(-0.5, FAST, ACCURACY, -1.0) == pytest.approx((1 + 2 / 3, 2 * (1 + 2 / 3)))
    early = row("decorrelated", [0.9, 0.8], [0.5, 0.5])  # there is no loss before the first epoch
    assert time_to(1.0, early, TRAIN_LOSS, 1.0) == (1.0, 2.0)


def test_the_tables_have_a_line_for_each_method() -> None:
    other = row("backprop", [2.0, 1.4, 1.1, 1.0], [0.2, 0.4, 0.5, 0.45], seed=1)
    text = tables([SLOW, FAST, other, row("decorrelated", [1.0, 0.9], [0.4, 0.5], seed=1)])
    assert text.count("|---|") == 2
    assert "| mlp | backprop | 1.000 ± 0.000 | 45.0 ± 0.0 | 50.0 ± 0.0 | 2.0 ± 0.0 | 4.0" in text
    assert "| mlp | decorrelated | 50.0 ± 0.0 | 40.0 ± 0.0 |" in text


def test_the_best_setting_is_that_of_the_smallest_judged_loss() -> None:
    made = [
        {"part": "tuning", "network": "mlp", "method": "backprop", "rate": rate,
         "decorrelation_rate": None, "train_loss": 1.0, "judged_loss": loss,
         "judged_accuracy": 0.5, "seconds": 3.0}
        for rate, loss in ((0.1, 1.2), (0.01, 1.1), (0.001, 1.3))
    ]  # fmt: skip
    (bold,) = [line for line in tried(made).splitlines() if "**" in line]
    assert "**0.01**" in bold
