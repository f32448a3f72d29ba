"""Batches of samples that the model accepts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration.input_spec import InputSpec, batch_extent, format_shape
from onnxprune.errors import CalibrationError

logger = logging.getLogger(__name__)

SUMMARY_BATCH = 8

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of a sample's arrays, without the sample axis, in the order of the inputs."""


class SampleStore(Protocol):
    """Single samples by index, read one at a time."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Feed:
        """Sample ``index``: input name -> array without the sample axis, in the input's type."""

    def shapes(self, index: int) -> Shapes:
        """The shapes of sample ``index``; cheap once ``check`` has seen it."""

    @property
    def images(self) -> bool:
        """Whether pixels become values, as preprocessing says."""

    def check(self, indices: IndexArray) -> None:
        """Raise now what reading these samples would raise later, within bounded memory."""

    def describe(self) -> str:
        """What the samples are, for people."""


class Calibration:
    """The calibration samples of one model.

    Args:
        store: where the samples are read from.
        inputs: the model's inputs.
        selected: array of shape (samples,): which samples of the store are used; None for all.
        warning: what users must know of them; None for nothing.
    """

    def __init__(
        self,
        store: SampleStore,
        inputs: Sequence[InputSpec],
        selected: IndexArray | None = None,
        warning: str | None = None,
    ) -> None:
        self.warning = warning
        self._store = store
        self._selected = np.arange(len(store), dtype=np.int64) if selected is None else selected
        self.inputs = tuple(inputs)
        self.batch_extent = batch_extent(inputs)
        """The batch size the model is fixed to; None where any will do."""

    def __len__(self) -> int:
        return len(self._selected)

    @property
    def store(self) -> SampleStore:
        """Where the samples are read from."""
        return self._store

    @property
    def selected(self) -> IndexArray:
        """Which samples of the source are used, shape (samples,)."""
        return self._selected

    @property
    def available(self) -> int:
        """How many samples the source has, used or not."""
        return len(self._store)

    def batches(self, indices: IndexArray, batch_size: int) -> Iterator[Feed]:
        """Batches of the given samples, in their order; read lazily, one batch in memory.

        Neighbours with different shapes (dynamic extents) come in different batches. A model with
        a fixed batch extent always gets batches of that size, whatever ``batch_size`` says;
        samples that do not fill one are left out, never repeated, so that none counts twice.

        Args:
            indices: array of sample indices in 0 .. len(self) - 1.
            batch_size: the most samples in a batch.

        Yields:
            input name -> array of shape (samples of the batch, ...).
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ValueError(
                f"indices from {chosen.min()} to {chosen.max()} are not all among the "
                f"{len(self)} samples"
            )
        samples = (self._store.read(int(index)) for index in self._selected[chosen])
        if self.batch_extent is None:
            return (_stacked(run) for run in _runs(samples, batch_size))
        return self._full_batches(samples, self.batch_extent)

    def by_shape(self, indices: IndexArray) -> list[IndexArray]:
        """The given samples in parts of equal shapes, each part in their order.

        Shapes that more of all samples have come first.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        rank = self._shape_ranks[chosen]
        return [chosen[rank == which] for which in np.unique(rank)]

    @cached_property
    def _shape_ranks(self) -> IndexArray:
        """For every sample the place of its shapes among all, the most common first."""
        shapes = [self._store.shapes(index) for index in self._selected.tolist()]
        order = [shape for shape, _ in Counter(shapes).most_common()]
        ranks = {shape: rank for rank, shape in enumerate(order)}
        return np.array([ranks[shape] for shape in shapes], dtype=np.int64)

    def _full_batches(self, samples: Iterable[Feed], size: int) -> Iterator[Feed]:
        full, left_out = 0, 0
        for run in _runs(samples, size):
            if len(run) == size:
                full += 1
                yield _stacked(run)
            else:
                left_out += len(run)
        if left_out and not full:
            raise CalibrationError(
                f"The model takes batches of exactly {size} samples, but {left_out} samples with "
                "equal shapes in a row do not fill one; add samples, or export the model with a "
                "dynamic batch axis."
            )
        if left_out:
            logger.info("%d samples do not fill a batch of %d and are left out", left_out, size)

    def summary(self) -> str:
        """What the model is fed with: where it comes from, and a line for every input.

        The figures are those of the first batch (at most 8 samples, or the model's fixed batch).
        """
        parts = self.by_shape(np.arange(len(self), dtype=np.int64))
        first = parts[0][: self.batch_extent or SUMMARY_BATCH]
        feed = next(self.batches(first, SUMMARY_BATCH))
        noun = "sample" if len(self) == 1 else "samples"
        lines = [f"{len(self)} {noun}: {self._store.describe()}"]
        return "\n".join(lines + [_line(name, array) for name, array in feed.items()])


def _line(name: str, array: Array) -> str:
    mean = array.mean(dtype=np.float64)  # float16 sums overflow
    return (
        f"{name}: {array.dtype} {format_shape(array.shape)}, min {array.min():.4g}, "
        f"mean {mean:.4g}, max {array.max():.4g}"
    )


def _runs(samples: Iterable[Feed], size: int) -> Iterator[list[Feed]]:
    """Neighbours of equal shapes, at most ``size`` together."""
    run: list[Feed] = []
    for sample in samples:
        if run and _shapes(sample) != _shapes(run[0]):
            yield run
            run = []
        run.append(sample)
        if len(run) == size:
            yield run
            run = []
    if run:
        yield run


def _shapes(sample: Feed) -> list[tuple[int, ...]]:
    return [array.shape for array in sample.values()]


def _stacked(run: list[Feed]) -> Feed:
    return {name: np.stack([sample[name] for sample in run]) for name in run[0]}
