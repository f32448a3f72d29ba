"""Samples with the mirror images of all behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration.feeds import Calibration, SampleStore, Shapes
from onnxprune.calibration.image_axes import IMAGE_AXES, row_axis
from onnxprune.errors import CalibrationError


def mirrored(samples: Calibration) -> Calibration:
    """The samples, then every one of them again with its images mirrored, left and right.

    Raises:
        CalibrationError: no input is an image.
    """
    if not any(len(spec.shape) == IMAGE_AXES + 1 for spec in samples.inputs):
        found = ", ".join(f"'{spec.name}' {spec}" for spec in samples.inputs)
        raise CalibrationError(
            f"--mirror is for images, but no input has four axes ({found}); leave it away"
        )
    store, selected = samples.store, samples.selected
    doubled = np.concatenate([selected, selected + len(store)])
    return Calibration(_MirroredStore(store), samples.inputs, doubled, samples.warning)


@dataclass(frozen=True)
class _MirroredStore:
    """The samples of a store, then their mirror images."""

    inner: SampleStore

    def __len__(self) -> int:
        return 2 * len(self.inner)

    def read(self, index: int) -> Feed:
        """A sample, mirrored from the length of the store on."""
        again, place = divmod(index, len(self.inner))
        sample = self.inner.read(place)
        if not again:
            return sample
        return {
            name: np.flip(array, row_axis(array.shape) + 1) if array.ndim == IMAGE_AXES else array
            for name, array in sample.items()
        }

    def shapes(self, index: int) -> Shapes:
        """As the sample has them."""
        return self.inner.shapes(index % len(self.inner))

    @property
    def images(self) -> bool:
        """As the store."""
        return self.inner.images

    def check(self, indices: IndexArray) -> None:
        """As the store does."""
        self.inner.check(np.unique(indices % len(self.inner)))

    def describe(self) -> str:
        """What the samples are, for people."""
        return f"{self.inner.describe()}, and mirrored"
