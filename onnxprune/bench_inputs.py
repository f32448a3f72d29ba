"""What models are timed on: random values, or samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from onnxprune.arrays import Feed
from onnxprune.calibration import CalibrationSource, Preprocessing, load_calibration
from onnxprune.errors import CalibrationError, OnnxPruneError
from onnxprune.extents import declared_extents
from onnxprune.inputs import input_specs
from onnxprune.random_inputs import random_feed
from onnxprune.run_shapes import check_batch, run_shapes


class Inputs(Protocol):
    """Makes the feeds that models are timed on."""

    @property
    def advice(self) -> str:
        """What to do where a model does not run on them."""
        ...

    def feed(self, model: onnx.ModelProto, batch: int | None, where: str) -> Feed:
        """The inputs of every run.

        Args:
            model: the model.
            batch: samples in it; None for as many as the model is fixed to, or 1.
            where: the model's name, for messages.
        """
        ...


@dataclass(frozen=True)
class RandomInputs:
    """Random values, the same for models whose inputs are the same.

    Attributes:
        shapes: input name -> its shape, where models leave extents open.
        seed: of the values.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0
    advice: str = "the inputs are random; give samples that suit the model with --data"

    def feed(self, model: onnx.ModelProto, batch: int | None, where: str) -> Feed:
        """See ``Inputs``.

        Raises:
            OnnxPruneError: a shape does not fit, extents stay open, or the batch is another one.
        """
        own = declared_extents(model)
        stated = {name: shape for name, shape in self.shapes.items() if name in own}
        return random_feed(model, run_shapes(model, stated, batch, where), self.seed)


@dataclass(frozen=True)
class SampleInputs:
    """The first samples of a source.

    Attributes:
        source: as for calibration.
        preprocessing: how image files become inputs.
    """

    source: CalibrationSource
    preprocessing: Preprocessing | None = None
    advice: str = "look at the samples of --data"

    def feed(self, model: onnx.ModelProto, batch: int | None, where: str) -> Feed:
        """See ``Inputs``.

        Raises:
            CalibrationError: the samples do not fit the model, or are too few.
        """
        if batch is not None:
            check_batch(declared_extents(model), batch, where)
        samples = load_calibration(
            self.source, input_specs(model), preprocessing=self.preprocessing
        )
        size = samples.batch_extent or batch or 1
        feed = next(samples.batches(np.arange(min(size, len(samples))), size))
        found = len(next(iter(feed.values())))
        if found != size:
            raise CalibrationError(
                f"a batch of {size} needs as many samples of equal shapes, and --data begins with "
                f"{found}; give more, or a smaller --batch"
            )
        return feed


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], models: Mapping[str, onnx.ModelProto]
) -> None:
    """Every shape belongs to an input of some model.

    Raises:
        OnnxPruneError: one does not.
    """
    known = {name for model in models.values() for name in declared_extents(model)}
    for name in shapes:
        if name not in known:
            raise OnnxPruneError(
                f"a shape is given for '{name}', but the inputs of {', '.join(models)} are "
                f"{', '.join(repr(other) for other in sorted(known)) or '(none)'}"
            )
