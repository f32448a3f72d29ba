"""How many positions are drawn, and that the draw favours none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.sampling import (
    MAX_ROW_BYTES,
    MIN_POINTS,
    draw_uniforms,
    positions,
    request_for,
    total_positions,
)

SAME = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))


def test_axis_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        request_for(
            FeatureSpec("x", 4, 1, parts=2), (1, 3, 8, 8), samples=1, batch=1, rows_per_feature=1
        )


def test_points_give_enough_rows_within_memory() -> None:
    shape = (None, 64, 32, 32)
    spec = FeatureSpec("x", 4, 1, SAME)

    def points(samples: int, batch: int, shape: tuple[int | None, ...] = shape) -> int:
        request = request_for(spec, shape, samples=samples, batch=batch, rows_per_feature=20)
        return request.points

    assert points(100, 32) == math.ceil(20 * 576 / 100)
    assert points(10**6, 32) == MIN_POINTS
    assert points(1, 1) == 1024  # all there are
    assert points(1, 1, (None, 64, None, None)) == 20 * 576  # as many as wanted, with repetition
    large = points(1, 1024, (None, 64, 512, 512))
    assert large * 1024 * 577 * 4 <= MAX_ROW_BYTES < (large + 1) * 1024 * 577 * 4


def test_total_positions() -> None:
    strided = Window((3, 3), (2, 2), (2, 2), (1, 0), (2, 0))
    assert total_positions(FeatureSpec("x", 4, 1, strided), (None, 3, 8, 9)) == 4 * 3
    assert total_positions(FeatureSpec("x", 4, 1, strided), (None, 3, 8, None)) is None
    assert total_positions(FeatureSpec("x", 2, 1, fold=4), (None, 12)) == 4
    assert total_positions(FeatureSpec("x", 3, 2), (None, 7, 12)) == 7
    assert total_positions(FeatureSpec("x", 3, 2), (None, None, 12)) is None


def test_uniforms_depend_on_seed_and_shard_alone() -> None:
    first = draw_uniforms(1, 2, 10)
    np.testing.assert_array_equal(draw_uniforms(1, 2, 5), first[:5])
    assert (draw_uniforms(2, 1, 10) != first).any()
    assert (draw_uniforms(1, 3, 10) != first).any()


def test_all_positions_are_taken_once_when_points_is_total() -> None:
    for total in (1, 7, 64, 1000, 50_176):
        for u in (0.0, 0.5, 1 - 2**-24):
            uniforms = np.full(total, u, np.float32)
            np.testing.assert_array_equal(positions(uniforms, total, total), np.arange(total))


def test_positions_favour_no_place() -> None:
    """With 5 of 12 positions each is expected 5 / 12 times a draw; 4 000 draws, 5 deviations."""
    draws = 4000
    counts = np.zeros(12)
    for shard in range(draws):
        places = positions(draw_uniforms(0, shard, 5), 5, 12)
        counts += np.bincount(places, minlength=12)
    deviation = np.sqrt(draws * 5 / 12)  # an upper bound: of a Poisson count
    assert np.abs(counts - draws * 5 / 12).max() < 5 * deviation
