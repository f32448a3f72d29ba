"""The accumulator: sums are exact to rounding, and know their rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.gram import Gram

# One float64 rounding for each of the few additions, relative to the largest entry.
FLOAT64_SUM = 1e-14


def _batch(rng: np.random.Generator, rows: int, parts: int = 2, features: int = 3) -> np.ndarray:
    values = rng.standard_normal((parts, rows, features))
    values = np.concatenate([values, np.ones((parts, rows, 1))], axis=2)
    return values.transpose(0, 2, 1) @ values


def _gram(*batches: np.ndarray) -> Gram:
    gram = Gram(2, 3)
    for batch in batches:
        gram.add(batch)
    return gram


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_gram_of_a_union_is_the_sum(rows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [_batch(rng, n) for n in rows]
    whole = _gram(*batches)
    for cut in range(len(rows) + 1):
        merged = _gram(*batches[:cut])
        merged.merge(_gram(*batches[cut:]))
        assert merged.rows == whole.rows == sum(rows)
        scale = np.abs(whole.sums).max()
        assert np.abs(merged.sums - whole.sums).max() <= FLOAT64_SUM * scale


def test_mean_is_the_moment_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    batch = _batch(rng, 50)
    gram = _gram(batch + 1e-9 * rng.standard_normal(batch.shape))
    mean = gram.mean()
    np.testing.assert_allclose(mean, batch / 50, atol=1e-9)
    assert (mean == mean.transpose(0, 2, 1)).all()
    np.testing.assert_array_equal(gram.part(1), mean[1])


def test_float32_batches_are_summed_in_float64() -> None:
    gram = Gram(1, 1)
    gram.add(np.full((1, 2, 2), 2**24, np.float32))
    gram.add(np.ones((1, 2, 2), np.float32))  # lost in a float32 sum
    assert gram.rows == 2**24 + 1


def test_reordered() -> None:
    gram = _gram(_batch(np.random.default_rng(1), 5))
    order = np.array([2, 0, 1, 3])
    result = gram.reordered(order)
    assert result.sums[1, 0, 3] == gram.sums[1, 2, 3]
    assert result.sums[0, 1, 2] == gram.sums[0, 0, 1]
    assert result.rows == gram.rows


def test_no_rows_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Gram(2, 3).mean()


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        Gram(2, 3).add(np.ones((1, 4, 4)))
