"""Samples made of noise, for those who have none: what they say of accuracy means little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration.feeds import Shapes
from onnxprune.calibration.input_spec import InputSpec

RANDOM = "random"
COUNT = 256
"""Samples, where nobody says how many."""
IMAGE_SIDE, LENGTH = 224, 16
"""Extents of open axes: height and width of images, and all others."""
IMAGE_AXES, PIXELS = 4, 256
WARNING = (
    "the samples are random numbers: the pruned model is fitted to what it will never see, and the "
    "errors reported say nothing of its accuracy; give real samples"
)


class RandomStore:
    """Samples that are drawn when they are read, each the same every time.

    Floating-point values are standard normal, pixels of uint8 uniform. Whole numbers that index a
    table of the model, as tokens do, are uniform over it; others, as masks, are 1.

    Args:
        inputs: the model's inputs.
        count: how many samples there are.
        seed: of the draws.
    """

    def __init__(self, inputs: Sequence[InputSpec], count: int, seed: int) -> None:
        self._inputs, self._count, self._seed = inputs, count, seed
        self._sizes = {spec.name: _shape(spec) for spec in inputs}

    def __len__(self) -> int:
        return self._count

    @property
    def images(self) -> bool:
        """None of them is one."""
        return False

    def read(self, index: int) -> Feed:
        """Sample ``index``."""
        rng = np.random.default_rng((self._seed, index))
        return {spec.name: _drawn(spec, self._sizes[spec.name], rng) for spec in self._inputs}

    def shapes(self, index: int) -> Shapes:
        """The shapes of all samples."""
        return tuple(self._sizes[spec.name] for spec in self._inputs)

    def check(self, indices: IndexArray) -> None:
        """Nothing can be wrong with them."""

    def describe(self) -> str:
        """What the samples are, for people."""
        return "random numbers"


def _shape(spec: InputSpec) -> tuple[int, ...]:
    sample = spec.extents[1:]
    images = len(spec.extents) == IMAGE_AXES and spec.dtype.kind in "fu"
    return tuple((IMAGE_SIDE if images else LENGTH) if n is None else n for n in sample)


def _drawn(spec: InputSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if spec.dtype.kind == "f":
        return rng.standard_normal(shape).astype(spec.dtype)
    if spec.dtype == np.uint8 and spec.below is None:
        return rng.integers(0, PIXELS, shape, dtype=np.uint8)
    if spec.below is None:
        return np.ones(shape, spec.dtype)
    return rng.integers(0, spec.below, shape).astype(spec.dtype)
