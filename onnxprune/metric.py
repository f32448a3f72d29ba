"""What the user judges models by: a function of their own, or labels of the samples.

A metric only ever judges: no weight is fitted to it. It is asked for at two places, in the trials
of the search and for the promise on the finished model, and labels use other samples for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, Feed, IndexArray, Vector
from onnxprune.calibration import Calibration, Split
from onnxprune.comparison import looks_like_scores
from onnxprune.errors import MetricError
from onnxprune.labels import Labels, read_labels
from onnxprune.user_code import find_function

Predict = Callable[[Feed], list[Array]]
"""Runs a model: input name -> array, to the list of its outputs in the model's order."""

UserMetric = Callable[[Predict], "float | Array"]
"""Judges a model by what it predicts, by one number or one for each sample; higher is better."""


class Metric(Protocol):
    """Judges a model by what it predicts; higher is better."""

    @property
    def name(self) -> str:
        """What is measured, for the report."""

    def tried(self, predict: Predict) -> float:
        """The value by which trials are compared."""

    def final(self, predict: Predict) -> float:
        """The value that is promised and reported."""


@dataclass(frozen=True)
class FunctionMetric:
    """A function of the user's, the same in trials and for the promise.

    Attributes:
        name: where it is from.
        function: the function.
    """

    name: str
    function: UserMetric

    def tried(self, predict: Predict) -> float:
        """What the function returns."""
        return self.final(predict)

    def final(self, predict: Predict) -> float:
        """What the function returns, or the mean of it.

        Raises:
            MetricError: it is not a finite number, nor one for each sample.
        """
        return float(self.values(predict).mean())

    def values(self, predict: Predict) -> Vector:
        """What the function returns: one number for all samples, or one for each.

        Raises:
            MetricError: it returns anything else.
        """
        value = self.function(predict)
        if isinstance(value, Real):
            value = float(value)
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            array = np.empty((0, 0))
        numeric = array.dtype.kind in "biuf" and (array.ndim == 1 or array.size == 1)
        if not numeric or not array.size or not np.isfinite(array).all():
            raise MetricError(
                f"{self.name}: returned {value!r}; a metric is a finite number, or one for each "
                "sample."
            )
        return array.reshape(-1).astype(np.float64)


@dataclass(frozen=True)
class Accuracy:
    """Share of samples whose highest score is of their class.

    Attributes:
        samples: the calibration samples.
        labels: class of each, shape (samples,).
        tune: samples that decide between trials.
        held_out: samples the promise is about.
        batch: samples per batch.
    """

    samples: Calibration
    labels: IndexArray
    tune: IndexArray
    held_out: IndexArray
    batch: int

    @property
    def name(self) -> str:
        """What is measured, for the report."""
        return f"top-1 accuracy ({self.held_out.size} held-out samples)"

    def tried(self, predict: Predict) -> float:
        """Accuracy on the samples to tune on."""
        return self._share(predict, self.tune)

    def final(self, predict: Predict) -> float:
        """Accuracy on the held-out samples."""
        return self._share(predict, self.held_out)

    def _share(self, predict: Predict, indices: IndexArray) -> float:
        return float(self.right(predict, indices).mean())

    def right(self, predict: Predict, indices: IndexArray) -> NDArray[np.bool_]:
        """Which samples have their highest score at their class, shape (samples that ran,).

        Args:
            predict: runs the model.
            indices: the samples; those that do not fill a batch which the model is fixed to are
                left out.
        """
        size = self.samples.batch_extent or self.batch
        right: list[NDArray[np.bool_]] = []
        for start in range(0, indices.size, size):
            chunk = indices[start : start + size]
            done = 0
            for feed in self.samples.batches(chunk, size):
                scores = _scores(predict(feed), feed)
                truth = self.labels[chunk[done : done + len(scores)]]
                if truth.max() >= scores.shape[1]:
                    raise MetricError(
                        f"a label is {truth.max()}, but the model scores {scores.shape[1]} "
                        "classes, counted from 0"
                    )
                right.append(scores.argmax(axis=1) == truth)
                done += len(scores)
        return np.concatenate(right)


def _scores(outputs: Sequence[Array], feed: Feed) -> Array:
    """The first output that holds class scores, shape (samples, classes)."""
    found = next((o for o in outputs if looks_like_scores(o, feed)), None)
    if found is None:
        raise MetricError(
            "labels are classes, but no output of the model is a row of class scores per sample; "
            "judge it by a function: --eval file.py:function"
        )
    return found.reshape(found.shape[0], -1)


def metric_of(
    evaluate: str | UserMetric | None,
    labels: Labels | None,
    samples: Calibration,
    split: Split,
    batch: int,
) -> Metric | None:
    """The metric that was asked for, if any; see ``function_metric`` and ``label_metric``."""
    if labels is not None:
        return label_metric(labels, samples, split, batch)
    return None if evaluate is None else function_metric(evaluate)


def function_metric(evaluate: str | UserMetric) -> FunctionMetric:
    """A metric from a function, or from ``file.py:function``.

    Raises:
        MetricError: the file or the function is missing, or fails.
    """
    if not isinstance(evaluate, str):
        return FunctionMetric(getattr(evaluate, "__name__", "metric"), evaluate)
    return FunctionMetric(evaluate, find_function(evaluate, "the metric", MetricError))


def label_metric(
    labels: Labels,
    samples: Calibration,
    split: Split,
    batch: int,
) -> Accuracy:
    """The accuracy on labelled calibration samples.

    Args:
        labels: class indices from 0, one for each sample of the source in its order (also for
            those that are not used), or an .npy file of them.
        samples: the samples.
        split: which decide and which are held out.
        batch: samples per batch.

    Raises:
        MetricError: the labels cannot be read or do not fit the samples.
    """
    given = read_labels(labels, samples.available, "calibration samples", MetricError)
    used = given[samples.selected]
    return Accuracy(samples, used, split.tune, split.held_out, batch)
