"""Samples in memory: which fit the model, and how they are batched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

from onnxprune.arrays import Array, Feed
from onnxprune.calibration import Calibration, InputSpec, load_calibration
from onnxprune.errors import CalibrationError

FLOAT = np.dtype(np.float32)
INT = np.dtype(np.int64)
IMAGE = InputSpec("x", ("N", 3, 4, 4), FLOAT)
TEXT = (InputSpec("ids", ("N", "seq"), INT), InputSpec("mask", ("N", "seq"), INT))


def samples(count: int) -> Array:
    """Distinguishable samples for IMAGE: sample i is filled with i."""
    return np.broadcast_to(
        np.arange(count, dtype=np.float32)[:, None, None, None], (count, 3, 4, 4)
    )


def firsts(calibration: Calibration, indices: Iterable[int], batch: int) -> list[list[float]]:
    """For every batch, the first value of each of its samples."""
    feeds = calibration.batches(np.array(list(indices), dtype=np.int64), batch)
    return [[float(sample.flat[0]) for sample in feed["x"]] for feed in feeds]


def refusal(source: Any, *inputs: InputSpec) -> str:
    with pytest.raises(CalibrationError) as caught:
        load_calibration(source, inputs or (IMAGE,))
    return str(caught.value)


# --- sources in memory ---


def dictionaries() -> Iterator[Feed]:
    for value in range(5):
        yield {"x": np.full((1, 3, 4, 4), value, np.float32)}


class Reader:
    """As onnxruntime's CalibrationDataReader: None at the end."""

    def __init__(self) -> None:
        self._feeds = dictionaries()

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@pytest.mark.parametrize(
    "source",
    [
        samples(5),
        {"x": samples(5)},
        {"x": samples(5).tolist()},
        dictionaries(),
        list(dictionaries()),
        [{"x": samples(5)[:2]}, {"x": samples(5)[2:]}],
        [{"x": sample} for sample in samples(5)],  # without the sample axis
        Reader(),
    ],
    ids=["array", "mapping", "lists", "generator", "list", "batches", "single", "ort"],
)
def test_sources_in_memory(source: Any) -> None:
    calibration = load_calibration(source, [IMAGE])
    assert len(calibration) == 5
    assert firsts(calibration, range(5), 2) == [[0, 1], [2, 3], [4]]
    assert next(calibration.batches(np.arange(2), 2))["x"].dtype == FLOAT


def test_a_reused_buffer_is_copied() -> None:
    def feeds() -> Iterator[Feed]:
        buffer = np.zeros((1, 3, 4, 4), np.float32)
        for value in range(3):
            buffer[:] = value
            yield {"x": buffer}

    assert firsts(load_calibration(feeds(), [IMAGE]), range(3), 3) == [[0, 1, 2]]


def test_several_inputs_with_dynamic_extents() -> None:
    feeds = [
        {"ids": np.full((1, length), length), "mask": np.ones((1, length), np.int64)}
        for length in (3, 3, 5, 3)
    ]
    calibration = load_calibration(feeds, TEXT)
    shapes = [feed["ids"].shape for feed in calibration.batches(np.arange(4), 8)]
    assert shapes == [(2, 3), (1, 5), (1, 3)]
    assert [feed["mask"].shape for feed in calibration.batches(np.arange(4), 8)] == shapes


# --- what does not fit is refused, naming the input, what was found and what was expected ---


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"y": samples(2)}, ["'y'", "'x'", "add", "remove"]),
        ({}, ["(none)", "'x'"]),
        ({"x": samples(2), 3: samples(2)}, ["remove 3"]),
        ({"x": samples(2)[:, :1]}, ["'x'", "[1, 4, 4]", "[3, 4, 4]"]),
        ({"x": np.zeros((2, 3))}, ["'x'", "[2, 3]", "[N, 3, 4, 4]"]),
        ({"x": samples(0)}, ["'x'", "empty", "[0, 3, 4, 4]"]),
        ({"x": samples(2).astype(np.uint8)}, ["'x'", "uint8", "float32", "mean"]),
        ({"x": samples(2).astype(complex)}, ["'x'", "complex128", "float32"]),
        ({"x": np.full((2, 3, 4, 4), None)}, ["'x'", "objects", "float32"]),
        ({"x": [[1.0], [1.0, 2.0]]}, ["'x'", "list", "not an array"]),
        ({"x": np.full((1, 3, 4, 4), np.inf)}, ["'x'", "48 of 48", "NaN or Inf"]),
        ({"x": np.full((1, 3, 4, 4), 1e300)}, ["'x'", "1e+300", "overflow", "float32"]),
        ([], ["list", "no samples"]),
        (["text"], ["item 0", "found str", "dictionary", "'x'"]),
        ([(samples(1), samples(1))[:0]], ["item 0", "found tuple", "dictionary"]),
        ([{"y": samples(1)}], ["item 0", "add 'x'"]),
        ([{"x": samples(1)}, {"x": samples(1) * np.nan}], ["item 1", "'x'", "NaN"]),
        (7, ["int", "iterable"]),
    ],
)
def test_refusals(source: Any, words: list[str]) -> None:
    message = refusal(source)
    assert all(word in message for word in words), message


def test_the_bad_sample_is_named() -> None:
    values = samples(5).copy()
    values[3, 0, 0, 0] = np.nan
    assert "the ndarray given, sample 3, input 'x': 1 of 48 values" in refusal(values)


def test_different_numbers_of_samples() -> None:
    message = refusal({"ids": np.ones((2, 3), int), "mask": np.ones((3, 3), int)}, *TEXT)
    assert "'ids': 2, 'mask': 3" in message


def test_one_array_does_not_feed_two_inputs() -> None:
    message = refusal(np.ones((2, 3), np.int64), *TEXT)
    assert "2 inputs ('ids', 'mask')" in message


def test_models_without_a_common_sample_axis() -> None:
    with pytest.raises(CalibrationError, match="no inputs"):
        load_calibration([], [])
    assert "'s' is a scalar" in refusal({}, InputSpec("s", (), FLOAT))
    fixed = (InputSpec("a", (1, 2), FLOAT), InputSpec("b", (4, 2), FLOAT))
    assert "'a': 1, 'b': 4" in refusal({}, *fixed)


# --- types ---


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("float64", "float32"),
        ("float32", "float16"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("int32", "int64"),
        ("int64", "int32"),
        ("uint8", "uint8"),
        ("bool", "bool"),
    ],
)
def test_harmless_conversions(found: str, wanted: str) -> None:
    spec = InputSpec("x", ("N", 2), np.dtype(wanted))
    calibration = load_calibration(np.array([[0, 1]], dtype=found), [spec])
    (feed,) = calibration.batches(np.arange(1), 1)
    assert feed["x"].dtype == spec.dtype
    assert feed["x"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("int64", "float32"), ("float32", "int64"), ("uint8", "int64"), ("int64", "bool")],
)
def test_other_conversions_are_left_to_the_user(found: str, wanted: str) -> None:
    message = refusal(np.ones((2, 2), found), InputSpec("x", ("N", 2), np.dtype(wanted)))
    assert f"found type {found}, expected {wanted}" in message


def test_integers_that_do_not_fit() -> None:
    message = refusal(np.array([[2**40]]), InputSpec("x", ("N", 1), np.dtype(np.int32)))
    assert str(2**40) in message
    assert "int32" in message


# --- batches ---


def test_batches_follow_the_order_of_the_indices() -> None:
    calibration = load_calibration(samples(6), [IMAGE])
    assert firsts(calibration, [4, 1, 5, 1], 3) == [[4, 1, 5], [1]]
    assert firsts(calibration, [], 3) == []


@pytest.mark.parametrize("fixed", [1, 3])
def test_a_fixed_batch_extent_wins_and_drops_the_rest(fixed: int) -> None:
    calibration = load_calibration(samples(7), [InputSpec("x", (fixed, 3, 4, 4), FLOAT)])
    assert calibration.batch_extent == fixed
    batches = firsts(calibration, range(7), 2)
    assert {len(batch) for batch in batches} == {fixed}
    assert list(chain(*batches)) == list(range(7 - 7 % fixed))


def test_a_fixed_batch_that_cannot_be_filled() -> None:
    calibration = load_calibration(samples(7), [InputSpec("x", (4, 3, 4, 4), FLOAT)])
    with pytest.raises(CalibrationError, match="exactly 4 samples, but 3"):
        list(calibration.batches(np.arange(3), 4))
    assert list(calibration.batches(np.arange(0), 4)) == []


def test_extents_written_as_zero_or_minus_one_are_dynamic() -> None:
    calibration = load_calibration(samples(3), [InputSpec("x", (-1, 3, 0, 0), FLOAT)])
    assert firsts(calibration, range(3), 2) == [[0, 1], [2]]


def test_misuse_of_batches() -> None:
    calibration = load_calibration(samples(3), [IMAGE])
    with pytest.raises(ValueError, match="batch_size"):
        calibration.batches(np.arange(2), 0)
    for index in (-1, 3):
        with pytest.raises(ValueError, match="3 samples"):
            calibration.batches(np.array([index]), 1)


def test_summary_shows_every_input() -> None:
    values = np.concatenate([samples(8), np.full((2, 3, 4, 4), 100, np.float32)])
    text = load_calibration(values, [IMAGE]).summary()
    assert text == (
        "10 samples: arrays of the ndarray given\nx: float32 [8, 3, 4, 4], min 0, mean 3.5, max 7"
    )
    one = load_calibration({"ids": np.ones((1, 3), int), "mask": np.ones((1, 3), int)}, TEXT)
    assert one.summary().splitlines()[1:] == [
        "ids: int64 [1, 3], min 1, mean 1, max 1",
        "mask: int64 [1, 3], min 1, mean 1, max 1",
    ]


# --- subsets ---


def test_num_samples_takes_a_seeded_subset() -> None:
    def subset(number: int, seed: int) -> list[float]:
        calibration = load_calibration(samples(50), [IMAGE], num_samples=number, seed=seed)
        return list(chain(*firsts(calibration, range(len(calibration)), 8)))

    chosen = subset(10, 3)
    assert chosen == subset(10, 3) == sorted(set(chosen))
    assert len(chosen) == 10
    assert chosen != subset(10, 4)
    assert subset(99, 3) == list(range(50))
    with pytest.raises(ValueError, match="num_samples"):
        subset(0, 3)


def test_values_outside_the_subset_are_not_read() -> None:
    values = samples(50).copy()
    taken = load_calibration(values, [IMAGE], num_samples=1, seed=0).batches(np.arange(1), 1)
    index = int(next(taken)["x"].flat[0])
    values[(index + 1) % 50] = np.nan
    assert len(load_calibration(values, [IMAGE], num_samples=1, seed=0)) == 1
