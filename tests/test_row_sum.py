"""Rows that wait: their Gram is that of all rows, and is made of few products."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.row_sum import RowSum

FEATURES = 6


def rows(rng: np.random.Generator, count: int, width: int = FEATURES) -> np.ndarray:
    """Whole numbers, whose products float32 holds exactly."""
    return rng.integers(-9, 9, (2, count, width)).astype(np.float32)


@given(st.lists(st.integers(0, 20), max_size=9), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_the_moments_are_those_of_all_rows(counts: list[int], outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = RowSum(2, FEATURES, outputs)
    seen = [np.zeros((2, 0, FEATURES + 1 + outputs))]
    for count in counts:
        x, y = rows(rng, count), rows(rng, count, outputs)
        seen.append(np.concatenate([x, np.ones((2, count, 1)), y], axis=2))
        total.add(x, y)
        x[:], y[:] = np.nan, np.nan  # nothing is kept of what was given
    whole = np.concatenate(seen, axis=1)
    product = whole.transpose(0, 2, 1) @ whole
    found = total.moments()
    assert found.rows == total.gram().rows == sum(counts)
    np.testing.assert_array_equal(found.gram, product[:, : FEATURES + 1, : FEATURES + 1])
    np.testing.assert_array_equal(found.cross, product[:, FEATURES + 1 :, : FEATURES + 1])
    second = np.trace(product[:, FEATURES + 1 :, FEATURES + 1 :], axis1=1, axis2=2)
    np.testing.assert_array_equal(found.second, second)
    np.testing.assert_array_equal(total.gram().sums, found.gram)


@pytest.mark.parametrize(("size", "products"), [(1, 6), (3, 7), (7, 6), (40, 2)])
def test_few_rows_are_multiplied_together(size: int, products: int) -> None:
    """Of 42 rows where 7 have room, and of 80 in two batches that are larger than that."""
    total, rng, made = RowSum(2, FEATURES), np.random.default_rng(0), 0

    def counted(self: RowSum) -> None:
        nonlocal made
        made += self._count > 0
        plain(self)

    plain = RowSum._multiply
    with mock.patch.object(RowSum, "_multiply", counted):
        for _ in range(max(42 // size, 2)):
            total.add(rows(rng, size))
        total.moments()
        total.moments()
    assert made == products


def test_what_is_not_finite_shows() -> None:
    total = RowSum(2, FEATURES, 1)
    x, y = rows(np.random.default_rng(0), 9), rows(np.random.default_rng(1), 9, 1)
    total.add(x, y)
    assert total.moments().finite
    for place in (x, y):
        spoilt = place.copy()
        spoilt[1, 4, 0] = np.inf
        other = RowSum(2, FEATURES, 1)
        other.add(*((spoilt, y) if place is x else (x, spoilt)))
        assert not other.moments().finite
