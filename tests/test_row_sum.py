"""Rows that wait: their Gram is that of all rows, and is made of few products."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.gram import Gram
from onnxprune.row_sum import RowSum

FEATURES = 6


def rows(rng: np.random.Generator, count: int) -> np.ndarray:
    """Whole numbers, whose products float32 holds exactly."""
    values = rng.integers(-9, 9, (2, count, FEATURES + 1)).astype(np.float32)
    values[:, :, -1] = 1
    return values


@given(st.lists(st.integers(0, 20), max_size=9), st.integers(0, 2**32 - 1))
def test_the_gram_is_that_of_all_rows(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    total, batches = RowSum(2, FEATURES), [rows(rng, count) for count in counts]
    for batch in batches:
        total.add(batch)
        batch[:] = np.nan  # nothing is kept of what was given
    rng = np.random.default_rng(seed)
    whole = np.concatenate([np.zeros((2, 0, 7)), *(rows(rng, count) for count in counts)], axis=1)
    assert total.gram().rows == sum(counts)
    np.testing.assert_array_equal(total.gram().sums, whole.transpose(0, 2, 1) @ whole)


@pytest.mark.parametrize(("size", "products"), [(1, 6), (3, 7), (7, 6), (40, 2)])
def test_few_rows_are_multiplied_together(size: int, products: int) -> None:
    """Of 42 rows of 7 entries, and of 80 in two batches that are larger than that."""
    total, rng = RowSum(2, FEATURES), np.random.default_rng(0)
    with mock.patch.object(Gram, "add", autospec=True) as add:
        for _ in range(max(42 // size, 2)):
            total.add(rows(rng, size))
        total.gram()
        total.gram()
    assert add.call_count == products
