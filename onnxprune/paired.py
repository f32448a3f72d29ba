"""The same metric of two models on the same samples, and how sure their difference is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.arrays import Vector
from onnxprune.calibration import Calibration
from onnxprune.errors import MetricError
from onnxprune.labels import Labels, read_labels
from onnxprune.metric import Accuracy, Predict, UserMetric, function_metric


@dataclass(frozen=True)
class PairedMetric:
    """One metric of two models.

    Attributes:
        name: what is measured.
        first: its value for the reference.
        second: its value for the changed model.
        standard_error: of the difference, from the differences of single samples: most of the
            noise of an accuracy is that of samples on which both are right or both wrong, and is
            not in it. None where the metric is one number for all samples.
        samples: how many numbers it is the mean of.
    """

    name: str
    first: float
    second: float
    standard_error: float | None
    samples: int

    @property
    def difference(self) -> float:
        """By how much the changed model is better."""
        return self.second - self.first

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return vars(self) | {"difference": self.difference}

    def __str__(self) -> str:
        spread = "" if self.standard_error is None else f" ± {self.standard_error:.4f}"
        many = f" ({self.samples} samples)" if self.samples > 1 else ""
        return (
            f"{self.name}: {self.first:.4f} and {self.second:.4f}, difference "
            f"{self.difference:+.4f}{spread}{many}"
        )


def paired(name: str, first: Vector, second: Vector) -> PairedMetric:
    """The means of two metrics and the standard error of their difference.

    Args:
        name: what is measured.
        first: its value for every sample and the reference, shape (samples,).
        second: the same for the changed model.

    Raises:
        MetricError: they are of different numbers of samples.
    """
    if first.size != second.size:
        raise MetricError(
            f"{name}: {first.size} numbers for one model and {second.size} for the other; a "
            "metric gives equally many for both"
        )
    count = first.size
    differences = second - first
    error = float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return PairedMetric(name, float(first.mean()), float(second.mean()), error, count)


def paired_function(
    evaluate: str | UserMetric, predictors: tuple[Predict, Predict]
) -> PairedMetric:
    """A metric of the user's: a function of ``predict``, or ``file.py:function``.

    Raises:
        MetricError: the function is missing, fails, or returns no numbers.
    """
    metric = function_metric(evaluate)
    return _both(metric.name, metric.values, predictors)


def paired_accuracy(
    labels: Labels, samples: Calibration, batch: int, predictors: tuple[Predict, Predict]
) -> PairedMetric:
    """The accuracy on labelled samples.

    Args:
        labels: class indices from 0, one for each sample of the source in its order, or an .npy
            file of them.
        samples: the samples.
        batch: samples per batch.
        predictors: run the two models.

    Raises:
        MetricError: the labels cannot be read or fit neither the samples nor the models.
    """
    given = read_labels(labels, samples.available, "samples", MetricError)
    every = np.arange(len(samples), dtype=np.int64)
    metric = Accuracy(samples, given[samples.selected], every, every, batch)
    return _both(
        "top-1 accuracy",
        lambda predict: metric.right(predict, every).astype(np.float64),
        predictors,
    )


def _both(
    name: str, values: Callable[[Predict], Vector], predictors: tuple[Predict, Predict]
) -> PairedMetric:
    return paired(name, *(values(predict) for predict in predictors))
