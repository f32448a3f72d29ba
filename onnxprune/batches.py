"""Some of the samples in batches, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration import Calibration


@dataclass(frozen=True)
class Batches:
    """Some of the samples in batches, as often as they are asked for.

    Samples of equal shapes are together, those of the most common shapes first.

    Attributes:
        samples: all samples.
        indices: which of them.
        size: samples per batch.
    """

    samples: Calibration
    indices: IndexArray
    size: int

    def __iter__(self) -> Iterator[Feed]:
        parts = self._parts
        order = np.concatenate(parts) if parts else self.indices
        return self.samples.batches(order, self.size)

    def __len__(self) -> int:
        fixed = self.samples.batch_extent
        if fixed is not None:  # what does not fill a batch is left out
            return sum(part.size // fixed for part in self._parts)
        return sum(-(-part.size // self.size) for part in self._parts)

    @cached_property
    def _parts(self) -> list[IndexArray]:
        return self.samples.by_shape(self.indices)
