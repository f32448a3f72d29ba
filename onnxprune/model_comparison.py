"""Two model files beside each other: what they cost, and how far their outputs are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.arrays import Array, Feed
from onnxprune.calibration import CalibrationSource, Preprocessing, load_calibration
from onnxprune.canonical import canonicalise
from onnxprune.comparison import OutputDistance
from onnxprune.cost import counted_macs, parameter_count
from onnxprune.difference_bounds import Bound, checked
from onnxprune.errors import InterfaceError, UnsupportedModelError
from onnxprune.executor import InProcess
from onnxprune.inputs import input_specs, mask_of
from onnxprune.interfaces import check_interfaces, common_inputs, fitted
from onnxprune.labels import Labels
from onnxprune.metric import UserMetric
from onnxprune.model import file_bytes, load
from onnxprune.paired import PairedMetric, paired_accuracy, paired_function
from onnxprune.runtime import Provider, Session
from onnxprune.validation import compare_runs


@dataclass(frozen=True)
class CompareOptions:
    """How models are compared.

    Attributes:
        limits: name of a bound -> what is allowed; see ``difference_bounds``.
        evaluate: judges a model by a function of what it predicts, or ``file.py:function``.
        labels: classes of the samples, by which models are judged instead.
        preprocessing: how image files become inputs.
        num_samples: samples used; None for all.
        batch: samples per batch, where the models leave that open.
        seed: of the random subset.
        provider: where the models run.
        progress: whether to show a bar.
        mask: name of the input that is 0 where positions of outputs do not count; None for none.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    evaluate: str | UserMetric | None = None
    labels: Labels | None = None
    preprocessing: Preprocessing | None = None
    num_samples: int | None = None
    batch: int = 32
    seed: int = 0
    provider: Provider = "cpu"
    progress: bool = False
    mask: str | None = None


@dataclass(frozen=True)
class ModelCost:
    """What one model costs.

    Attributes:
        path: its file.
        params: floating-point parameters.
        macs: multiply-accumulates for one sample; None where they cannot be counted, as those of a
            quantised model.
        bytes: size of the file, its external data included.
    """

    path: str
    params: int
    macs: int | None
    bytes: int


@dataclass(frozen=True)
class ModelComparison:
    """What was found.

    Attributes:
        samples: what the models ran on, in a line or more.
        costs: what the two models cost.
        outputs: how far each output of the second is from that of the first.
        metric: the user's metric of both; None without one.
        bounds: every bound beside what was measured.
        skipped: outputs that are no arrays of numbers.
    """

    samples: str
    costs: tuple[ModelCost, ModelCost]
    outputs: Sequence[OutputDistance]
    metric: PairedMetric | None
    bounds: Sequence[Bound]
    skipped: Sequence[str]

    @property
    def broken(self) -> list[Bound]:
        """The bounds that are not kept."""
        return [bound for bound in self.bounds if not bound.holds]

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values; what is not finite is null."""
        return {
            "models": [vars(cost) for cost in self.costs],
            "outputs": [
                {name: finite(value) for name, value in output.to_dict().items()}
                | {
                    "max_abs_error": finite(output.max_abs_error),
                    "samples_of_other_shape": output.reshaped,
                }
                for output in self.outputs
            ],
            "outputs_skipped": list(self.skipped),
            "metric": None if self.metric is None else self.metric.to_dict(),
            "bounds": [b.to_dict() | {"found": finite(b.found)} for b in self.bounds],
        }


def finite(value: Any) -> Any:
    """The value, or None for a number that JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare_models(
    paths: tuple[Path, Path], source: CalibrationSource, options: CompareOptions
) -> ModelComparison:
    """Runs two models on the same samples; outputs are matched by name.

    Args:
        paths: the reference and the changed model.
        source: the samples.
        options: settings.

    Raises:
        InterfaceError: their inputs or outputs differ, or none is an array of numbers.
        OnnxPruneError: a model or the samples cannot be read, or the models do not run.
    """
    models = [load(path) for path in paths]
    first, second = (Session(path, provider=options.provider, arena=False) for path in paths)
    check_interfaces((first, second), (str(paths[0]), str(paths[1])))
    samples = load_calibration(
        source,
        common_inputs(input_specs(models[0]), second),
        preprocessing=options.preprocessing,
        num_samples=options.num_samples,
        seed=options.seed,
    )
    names = list(first.outputs)
    runs = (partial(_run, first, names), partial(_run, second, names))
    every = np.arange(len(samples), dtype=np.int64)
    outputs = compare_runs(
        names,
        *runs,
        samples.batches(every, options.batch),
        InProcess(options.progress),
        mask_of(canonicalise(models[0]), samples, options.mask),
    )
    if not outputs:
        raise InterfaceError(
            f"no output of {paths[0]} is an array of numbers ({', '.join(names)}); there is "
            "nothing to compare"
        )
    metric = None
    if options.labels is not None:
        metric = paired_accuracy(options.labels, samples, options.batch, runs)
    elif options.evaluate is not None:
        metric = paired_function(options.evaluate, runs)
    sample = next(samples.batches(every[: samples.batch_extent or 1], 1))
    costs = [_cost(path, model, sample) for path, model in zip(paths, models, strict=True)]
    compared = {output.name for output in outputs}
    return ModelComparison(
        samples.summary(),
        (costs[0], costs[1]),
        outputs,
        metric,
        checked(options.limits, outputs, metric),
        [name for name in names if name not in compared],
    )


def _run(session: Session, names: list[str], feed: Feed) -> list[Array]:
    return session.run(fitted(feed, session), names)


def _cost(path: Path, model: onnx.ModelProto, sample: Feed) -> ModelCost:
    shapes = {name: array.shape for name, array in sample.items()}
    batch = next(len(array) for array in sample.values())
    macs: int | None
    try:
        macs = round(counted_macs(canonicalise(model), shapes) / batch)
    except UnsupportedModelError:
        macs = None
    return ModelCost(str(path), parameter_count(model), macs, file_bytes(model))
