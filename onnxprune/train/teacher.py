"""The original network as the teacher: samples, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration import Calibration
from onnxprune.extract import exposed
from onnxprune.runtime import Provider, Session

Change = Callable[[Feed], Feed]

KEPT_BYTES = 1 << 30
"""Bytes of outputs that are kept, where nothing else is said."""


@dataclass(frozen=True)
class Lesson:
    """Some samples and the original's tensors for them.

    Attributes:
        feed: input name -> batch.
        reference: tensor name -> batch.
        samples: how many there are.
    """

    feed: Feed
    reference: dict[str, Array]
    samples: int


@dataclass
class Teacher:
    """Computes what the original makes of samples, once for each as far as memory allows.

    Attributes:
        model: the original.
        wanted: names of the tensors that are compared; outputs first.
        samples: all samples.
        batch: the most that are computed together, where the model leaves that open.
        provider: onnxruntime provider.
        max_bytes: bytes of tensors to keep; what is beyond them is computed again.
    """

    model: onnx.ModelProto
    wanted: Sequence[str]
    samples: Calibration
    batch: int
    provider: Provider = "cpu"
    max_bytes: int = KEPT_BYTES
    _kept: dict[int, dict[str, Array]] = field(default_factory=dict, init=False, repr=False)
    _bytes: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        outputs = {value.name for value in self.model.graph.output}
        inner = not set(self.wanted) <= outputs
        model = exposed(self.model, self.wanted) if inner else self.model
        self._session = Session(model, provider=self.provider, arena=False)

    @property
    def size(self) -> int:
        """Samples that are computed together."""
        return self.samples.batch_extent or self.batch

    def lessons(self, rows: IndexArray, changed: Change | None = None) -> Iterator[Lesson]:
        """The given samples in their order; those that do not fill a fixed batch are left out.

        Args:
            rows: indices of samples.
            changed: makes other samples of a batch, whose tensors are not kept; None to take them
                as they are.
        """
        for start in range(0, rows.size, self.size):
            chunk = rows[start : start + self.size]
            if self.samples.batch_extent is not None and chunk.size < self.size:
                return
            done = 0
            for feed in self.samples.batches(chunk, self.size):
                count = len(next(iter(feed.values())))
                own = chunk[done : done + count].tolist()
                done += count
                if changed is not None:
                    feed = changed(feed)
                    yield Lesson(feed, self._computed(feed), count)
                else:
                    yield Lesson(feed, self._reference(feed, own), count)

    def _reference(self, feed: Feed, rows: Sequence[int]) -> dict[str, Array]:
        if all(row in self._kept for row in rows):
            return {name: np.stack([self._kept[row][name] for row in rows]) for name in self.wanted}
        found = self._computed(feed)
        if all(array.ndim and len(array) == len(rows) for array in found.values()):
            self._keep(found, rows)
        return found

    def _computed(self, feed: Feed) -> dict[str, Array]:
        return dict(zip(self.wanted, self._session.run(feed, self.wanted), strict=True))

    def _keep(self, found: dict[str, Array], rows: Sequence[int]) -> None:
        for place, row in enumerate(rows):
            own = {name: array[place].copy() for name, array in found.items()}
            size = sum(array.nbytes for array in own.values())
            if row in self._kept or self._bytes + size > self.max_bytes:
                continue
            self._kept[row] = own
            self._bytes += size


def tensors(arrays: Feed, device: torch.device) -> dict[str, Tensor]:
    """Arrays as tensors on a device; types that torch does not compute with are widened."""
    return {name: torch.from_numpy(_plain(array)).to(device) for name, array in arrays.items()}


def _plain(array: Array) -> Array:
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return array.astype(np.int64)
    return np.ascontiguousarray(array)
