"""Streams of samples: readers, iterables of other libraries, pairs with a transform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from onnxprune.arrays import Array, Feed
from onnxprune.calibration import InputSpec, load_calibration
from onnxprune.calibration.items import as_array
from onnxprune.errors import CalibrationError

FLOAT = np.dtype(np.float32)
ROW = InputSpec("x", ("N", 2), FLOAT)
PAIR = (InputSpec("a", ("N", 2), FLOAT), InputSpec("b", ("N", 3), FLOAT))
VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)


def values_of(source: Any, *inputs: InputSpec, **options: Any) -> Array:
    """The first input's samples, as the calibration gives them."""
    calibration = load_calibration(source, inputs or (ROW,), **options)
    feeds = calibration.batches(np.arange(len(calibration)), 8)
    return np.concatenate([next(iter(feed.values())) for feed in feeds])


class Reader:
    """As onnxruntime's CalibrationDataReader, with the rewinding of its examples."""

    def __init__(self) -> None:
        self.feeds: Iterator[Feed] | None = None

    def get_next(self) -> Feed | None:
        if self.feeds is None:
            self.feeds = iter([{"x": row[None]} for row in VALUES])
        return next(self.feeds, None)

    def rewind(self) -> None:
        self.feeds = None


def test_a_reader_that_was_used_is_rewound_before_and_after() -> None:
    reader = Reader()
    while reader.get_next() is not None:
        pass
    assert np.array_equal(values_of(reader), VALUES)
    assert reader.get_next() is not None
    assert np.array_equal(values_of(reader), VALUES)


def test_a_reader_of_onnxruntime() -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Subclass(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.feeds = iter([{"x": row[None]} for row in VALUES])

        def get_next(self) -> Feed | None:
            return next(self.feeds, None)

    reader = Subclass()
    assert np.array_equal(values_of(reader), VALUES)
    with pytest.raises(CalibrationError, match="yields only once"):
        values_of(reader)


class Tensor:
    """What is asked of a tensor of PyTorch, on a device and in a graph."""

    def __init__(self, values: Array, steps: tuple[str, ...] = ()) -> None:
        self.values, self.steps = values, steps
        self.shape, self.dtype = values.shape, "torch.float32"

    def detach(self) -> Tensor:
        return Tensor(self.values, (*self.steps, "detach"))

    def cpu(self) -> Tensor:
        return Tensor(self.values, (*self.steps, "cpu"))

    def numpy(self) -> Array:
        assert self.steps == ("detach", "cpu"), "a tensor on a device or in a graph refuses"
        return self.values


class Eager:
    """What is asked of a tensor of TensorFlow."""

    def __init__(self, values: Array) -> None:
        self.values, self.shape, self.dtype = values, values.shape, "tf.float32"

    def numpy(self) -> Array:
        return self.values


class Loader:
    """A data loader: a new pass each time, in batches."""

    def __init__(self, made: Callable[[Array], object]) -> None:
        self.made = made

    def __iter__(self) -> Iterator[object]:
        return (self.made(VALUES[start : start + 2]) for start in (0, 2, 4))


@pytest.mark.parametrize("tensor", [np.asarray, Tensor, Eager])
@pytest.mark.parametrize(
    "item",
    [
        lambda t: t,
        lambda t: (t,),
        lambda t: [t, t],
        lambda t: (t, "labels"),
        lambda t: {"x": t},
        lambda t: {"x": t, "labels": t},
        lambda t: ({"x": t}, t),
    ],
    ids=["bare", "alone", "list", "labelled", "named", "named-labelled", "keras"],
)
def test_items_of_other_libraries(
    tensor: Callable[[Array], Any], item: Callable[[Any], object]
) -> None:
    assert np.array_equal(values_of(Loader(lambda batch: item(tensor(batch)))), VALUES)
    assert np.array_equal(values_of(tensor(VALUES)), VALUES)


def test_tuples_are_in_the_order_of_the_inputs() -> None:
    wide = np.ones((5, 3), np.float32)
    rows = list(zip(VALUES, wide, range(5), strict=True))
    calibration = load_calibration(rows, PAIR)
    (feed,) = calibration.batches(np.arange(5), 8)
    assert np.array_equal(feed["a"], VALUES)
    assert np.array_equal(feed["b"], wide)
    with pytest.raises(CalibrationError, match=r"item 0: found 1 arrays .* 2 inputs \('a', 'b'\)"):
        load_calibration([(VALUES,)], PAIR)


def test_pairs_of_an_iterable_and_a_transform() -> None:
    rows = [{"image": row, "label": 1} for row in VALUES]
    for source in (rows, (row for row in rows), Loader(lambda batch: {"image": batch})):
        assert np.array_equal(values_of((source, lambda item: {"x": item["image"]})), VALUES)
    assert np.array_equal(values_of((rows, lambda item: item["image"])), VALUES)


class Inference:
    """As nncf.Dataset, which is no iterable itself."""

    def __init__(self, source: Iterable[Any], transform: Callable[[Any], Any]) -> None:
        self.source, self.transform = source, transform

    def get_inference_data(self, indices: list[int] | None = None) -> Iterable[Any]:
        return map(self.transform, self.source)


def test_data_sets_of_nncf() -> None:
    assert np.array_equal(values_of(Inference(VALUES, lambda row: {"x": row})), VALUES)


def test_a_data_loader_of_torch() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    labelled = data.TensorDataset(torch.from_numpy(VALUES.copy()), torch.arange(5))
    assert np.array_equal(values_of(data.DataLoader(labelled, batch_size=2)), VALUES)
    half = torch.tensor(VALUES, dtype=torch.bfloat16, requires_grad=True)
    assert np.array_equal(as_array(half, ROW, "here"), VALUES)


def endless() -> Iterator[Feed]:
    number = 0
    while True:
        yield {"x": np.full((2, 2), number, np.float32)}
        number += 1


def test_num_samples_ends_a_stream() -> None:
    found = values_of(endless(), num_samples=6)
    assert found[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    rows = [{"x": row} for row in VALUES]  # a list is drawn from as a whole
    assert len({values_of(rows, num_samples=1, seed=seed)[0, 0] for seed in range(20)}) > 2


def test_what_is_no_tensor_is_told() -> None:
    with pytest.raises(CalibrationError, match=r"item 1: found str.*dictionary"):
        values_of([VALUES, "text"])
    with pytest.raises(CalibrationError, match=r"item 0, input 'x': found type uint8"):
        values_of([Tensor(VALUES.astype(np.uint8))])
    with pytest.raises(CalibrationError, match=r"tuple.*transform"):
        values_of((5, lambda item: item))
