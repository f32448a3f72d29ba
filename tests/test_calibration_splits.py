"""Which samples fit, tune and report."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.calibration import InputSpec, load_calibration, split
from onnxprune.errors import CalibrationError


@pytest.mark.parametrize(
    ("length", "extent", "sizes"),
    [
        (3, 1, (1, 1, 1)),
        (4, 1, (2, 1, 1)),
        (100, 1, (75, 15, 10)),
        (10_000, 1, (9_000, 500, 500)),
        (43, 4, (31, 8, 4)),
        (3_000, 1_000, (1_000, 1_000, 1_000)),
    ],
)
def test_split_sizes(length: int, extent: int, sizes: tuple[int, int, int]) -> None:
    parts = split(length, 0, batch_extent=extent)
    assert (len(parts.fit), len(parts.tune), len(parts.held_out)) == sizes
    together = np.concatenate([parts.fit, parts.tune, parts.held_out])
    assert np.array_equal(np.sort(together), np.arange(length))
    for part in (parts.fit, parts.tune, parts.held_out):
        assert part.dtype == np.int64
        assert np.array_equal(part, np.sort(part))
    assert parts.note == ""


def test_split_is_seeded() -> None:
    assert np.array_equal(split(40, 5).held_out, split(40, 5).held_out)
    assert not np.array_equal(split(40, 5).fit, split(40, 6).fit)


def test_split_of_one_and_two_samples() -> None:
    one = split(1, 0)
    assert one.fit.tolist() == one.tune.tolist() == one.held_out.tolist() == [0]
    assert "one calibration sample" in one.note
    two = split(2, 0)
    assert two.fit.tolist() == two.tune.tolist() != two.held_out.tolist()
    assert len(two.held_out) == 1
    assert "two calibration samples" in two.note


def test_split_in_whole_batches() -> None:
    with pytest.raises(
        CalibrationError, match="exactly 4 samples, but the calibration set has 3; add 1"
    ):
        split(3, 0, batch_extent=4)
    with pytest.raises(CalibrationError, match="no calibration samples"):
        split(0, 0)
    assert len(split(6, 0, batch_extent=4).held_out) == 6
    two = split(9, 0, batch_extent=4)
    assert (len(two.fit), len(two.held_out)) == (5, 4)
    assert "two calibration batches" in two.note


def test_every_part_of_a_split_fills_the_fixed_batch() -> None:
    values = np.zeros((43, 2), np.float32)
    calibration = load_calibration(values, [InputSpec("x", (4, 2), values.dtype)])
    parts = split(len(calibration), 0, batch_extent=4)
    for part in (parts.fit, parts.tune, parts.held_out):
        assert len(list(calibration.batches(part, 4))) == len(part) // 4


@pytest.mark.parametrize(("length", "extent"), [(1000, 1), (6000, 1), (40, 4), (5, 1)])
def test_samples_to_choose_by_are_taken_from_those_to_fit_on(length: int, extent: int) -> None:
    plain = split(length, 3, batch_extent=extent)
    parts = plain.with_choice(3, batch_extent=extent)
    assert not parts.note
    assert parts.choose.size == plain.tune.size
    assert parts.choose.size % extent == 0
    assert np.array_equal(np.union1d(parts.fit, parts.choose), plain.fit)
    assert not np.intersect1d(parts.fit, parts.choose).size
    assert np.array_equal(parts.tune, plain.tune)
    assert np.array_equal(parts.held_out, plain.held_out)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_few_samples_choose_although_they_were_fitted_on(length: int) -> None:
    plain = split(length, 0)
    parts = plain.with_choice(0)
    assert parts.note
    assert np.array_equal(parts.choose, plain.tune)
    assert np.array_equal(parts.fit, plain.fit)
