"""Widths that are timed, and times in between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.lattice import (
    FEW_LEVELS,
    INPUT_LEVELS,
    OUTPUT_LEVELS,
    SMOOTH_LEVELS,
    input_levels,
    measured,
    output_levels,
    smooth_levels,
)

RANGES = st.tuples(st.integers(1, 2000), st.integers(0, 2000)).map(lambda t: (t[0], t[0] + t[1]))


@given(RANGES, st.sampled_from([8, 16]))
@settings(max_examples=200, deadline=None)
def test_levels_are_few_and_are_tops_of_steps(ends, block):
    low, high = ends
    made, read, smooth = (
        output_levels(low, high, block),
        input_levels(low, high, block),
        smooth_levels(low, high),
    )
    assert made.size <= OUTPUT_LEVELS
    assert read.size <= INPUT_LEVELS + FEW_LEVELS + 1
    assert smooth.size <= SMOOTH_LEVELS
    assert made[0] == min(-(-low // block) * block, high)
    assert (smooth[0], read[0]) == (
        low,
        low if low < block else min(-(-low // block) * block, high),
    )
    for levels in (made, read, smooth):
        assert levels[-1] == high
        assert (np.diff(levels) > 0).all()
    assert ((made % block == 0) | (made == high)).all()
    assert ((read % block == 0) | (read < block) | (read == high)).all()


@given(RANGES)
@settings(max_examples=100, deadline=None)
def test_smooth_levels_avoid_multiples_where_they_can(ends):
    low, high = ends
    levels = smooth_levels(low, high, 4)
    assert low <= levels[0]
    assert levels[-1] <= high
    assert (levels[1:] % 4 != 0).all()


def stepped(read: int, made: int) -> float:
    inside = read if read < 16 else -(-read // 16) * 16
    return (2 + inside) * (3 + -(-made // 16) * 16)


def timed(function):
    return lambda pairs: [function(read, made) for read, made in pairs]


def test_times_within_a_step_are_those_of_its_top():
    table = measured(input_levels(4, 64, 16), output_levels(8, 80, 16), timed(stepped), 16)
    read, made = np.meshgrid(np.arange(4, 65), np.arange(8, 81), indexing="ij")
    wanted = [stepped(i, o) for i, o in zip(read.ravel(), made.ravel(), strict=True)]
    np.testing.assert_allclose(table(read.ravel(), made.ravel()), wanted)


def test_smooth_times_are_linear_between_timings():
    def product(read: int, made: int) -> float:
        return 1.0 + 2 * read + read * made

    table = measured(smooth_levels(3, 90), smooth_levels(5, 70), timed(product))
    read, made = np.array([3, 17, 50, 90]), np.array([5, 33, 64, 70])
    np.testing.assert_allclose(table(read, made), 1.0 + 2 * read + read * made)
    outside = table(np.array([0, 200]), np.array([0, 200]))
    np.testing.assert_allclose(outside, [product(3, 5), product(90, 70)])


def test_noise_makes_no_width_faster_than_a_smaller_one():
    noisy = {(8, 8): 1.0, (8, 16): 2.5, (16, 8): 2.0, (16, 16): 1.9}
    table = measured(
        np.array([8, 16]), np.array([8, 16]), lambda pairs: [noisy[pair] for pair in pairs]
    )
    assert table.times.tolist() == [[1.0, 1.9], [1.9, 1.9]]


def test_a_single_width_is_enough():
    table = measured(np.array([7]), np.array([9]), lambda _: [4.0])
    assert table(np.array([1, 7, 9]), np.array([9, 9, 20])) == pytest.approx([4.0, 4.0, 4.0])
