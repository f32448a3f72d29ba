"""From a model and labelled samples to a trained model: the main path of training."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration import CalibrationSource
from onnxprune.errors import OnnxPruneError, TrainingError
from onnxprune.inputs import input_specs
from onnxprune.model import load, pending
from onnxprune.rewrite import digest
from onnxprune.saved_moments import SavedMoments
from onnxprune.tables import columns
from onnxprune.train.augmentation import augmentations
from onnxprune.train.distributed import Processes, processes
from onnxprune.train.evaluation import Score, Selection, batch_of
from onnxprune.train.fit import Trainer
from onnxprune.train.initialisation import start_anew
from onnxprune.train.methods import METHODS
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.objective import Classification
from onnxprune.train.online_moments import OnlineMoments, few_samples
from onnxprune.train.options import TrainOptions
from onnxprune.train.records import Fitted
from onnxprune.train.samples import LabelledSamples, divided, load_labelled
from onnxprune.train.write_back import write_back
from onnxprune.validation import check_file

logger = logging.getLogger(__name__)

FREE = (
    "checkpoint",
    "checkpoint_seconds",
    "device",
    "labels",
    "history",
    "history_every",
    "progress",
    "resume",
)
"""Settings that may be others when a training goes on after a stop."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained model.

    Attributes:
        model: the model.
        fitted: how it was trained.
        leads: whether this is the process that writes.
        notes: what the method says of it.
        statistics: the moments that were learnt on the way, if they were asked for and the weights
            are not those of the start.
    """

    model: onnx.ModelProto = field(repr=False)
    fitted: Fitted
    leads: bool
    notes: tuple[str, ...]
    _original: onnx.ModelProto = field(repr=False)
    _sample: Feed = field(repr=False)
    statistics: SavedMoments | None = field(default=None, repr=False)

    def save(self, path: str | Path) -> None:
        """Validate the trained model as a file and move it to ``path`` if it passes.

        Of several processes the first one writes.

        Raises:
            ValidationError: it fails a check; ``path`` is left as it was.
            OnnxPruneError: the file cannot be written.
        """
        if self.leads:
            with pending(self.model, Path(path)) as temporary:
                check_file(temporary, self._original, self._sample)

    def save_statistics(self, path: str | Path) -> None:
        """Write the learnt moments; of several processes the first one does.

        Raises:
            OnnxPruneError: there are none, or the file cannot be written.
        """
        if self.statistics is None:
            raise OnnxPruneError(
                f"{path}: no statistics were learnt, as the weights are those of the start; with "
                "--keep last they are those of the end"
            )
        if self.leads:
            self.statistics.save(path)

    def to_dict(self) -> dict[str, Any]:
        """What the training came to, as plain JSON values; scores are None without validation."""
        fitted = self.fitted
        return {
            "steps": int(fitted.rows[-1]["step"] or 0),
            "seconds": round(fitted.seconds, 1),
            "kept_step": fitted.step,
            "before": _score(fitted.before),
            "after": _score(fitted.after),
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """What the training came to, for a terminal."""
        fitted = self.fitted
        steps = int(fitted.rows[-1]["step"] or 0)
        lines = [f"trained for {steps} steps in {fitted.seconds:.1f} s"]
        lines += self.notes
        if fitted.before is None or fitted.after is None:
            return "\n".join(lines)
        rows = [["", "before", "after"]]
        rows += [["validation accuracy", *map(_share, (fitted.before, fitted.after))]]
        rows += [["validation loss", f"{fitted.before.loss:.4f}", f"{fitted.after.loss:.4f}"]]
        lines += columns(rows)
        if fitted.step == 0:
            lines.append("note: no epoch was better than the network was before; nothing changed")
        elif fitted.step < steps:
            lines.append(f"note: the weights are those of step {fitted.step}, the best of all")
        return "\n".join(lines)


def _share(score: Score) -> str:
    return f"{score.accuracy:.2%}"


def _score(score: Score | None) -> dict[str, float] | None:
    return None if score is None else {"accuracy": score.accuracy, "loss": score.loss}


def train(
    model: str | Path | onnx.ModelProto,
    data: CalibrationSource,
    options: TrainOptions | None = None,
) -> TrainingResult:
    """Train the weights of a classifier.

    Args:
        model: the model, or its path; it is left as it is.
        data: labelled samples, see ``load_labelled``.
        options: settings.

    Returns:
        The model with other weights. Nothing is written but the history and checkpoints.

    Raises:
        UnsupportedModelError: the model cannot be read, or holds an operator that cannot be
            trained through.
        CalibrationError: the samples do not fit the model.
        TrainingError: labels do not fit, there is nothing to train, or the loss goes astray.
    """
    options = options or TrainOptions()
    entry, seeded = METHODS[options.method], {**options.method_settings, "seed": options.seed}
    given = model if isinstance(model, onnx.ModelProto) else load(model)
    original = entry.prepare(given, seeded)
    network = TrainableNetwork(original)
    if not network.weights:
        raise TrainingError("the model has no weights to train: none of its constants acts as one")
    samples = load_labelled(
        data,
        input_specs(original),
        options.labels,
        preprocessing=options.preprocessing,
        progress=options.progress,
    )
    training, validation = _selections(original, samples, options)
    with processes(options.device) as group:
        return _train(original, network, samples, training, validation, options, group)


def _train(
    original: onnx.ModelProto,
    network: TrainableNetwork,
    samples: LabelledSamples,
    training: Selection,
    validation: Selection | None,
    options: TrainOptions,
    group: Processes,
) -> TrainingResult:
    network.to(group.device)
    if options.fresh:
        start_anew(network, options.seed)
    part = next(samples.parts(training.indices[: samples.batch_extent or 1], 1))
    objective = Classification(network, dict(batch_of(part, group.device).feed), options.smoothing)
    objective.check(samples.labels, "the samples")
    if validation is not None and isinstance(validation.source, LabelledSamples):
        objective.check(validation.source.labels, "the validation samples")
    run = {"samples": len(training.indices), "seed": options.seed}
    method = METHODS[options.method].make(network, original, {**options.method_settings, **run})
    watching = OnlineMoments(method, network, original) if options.statistics else None
    trainer = Trainer(
        network,
        watching or method,
        objective,
        training,
        validation,
        options,
        group,
        augmentations(options.augment),
        _settings(original, samples, options, group),
    )
    fitted = trainer.run()
    network.to("cpu")
    result = method.finish(write_back(original, network))
    learnt = None
    if watching is not None and fitted.step:
        few = few_samples(validation or training, samples.batch_extent or 1)
        learnt = watching.moments(result, few)
    notes = tuple(method.notes())
    return TrainingResult(result, fitted, group.leads, notes, original, part.feed, learnt)


def _selections(
    model: onnx.ModelProto, samples: LabelledSamples, options: TrainOptions
) -> tuple[Selection, Selection | None]:
    """What is learnt from, and what is only evaluated."""
    unit = samples.batch_extent or 1
    held_out: Selection | None = None
    every: IndexArray = np.arange(len(samples), dtype=np.int64)
    if isinstance(options.validation, str):
        others = load_labelled(
            options.validation,
            input_specs(model),
            options.validation_labels,
            preprocessing=options.preprocessing,
            progress=options.progress,
        )
        if others.names != samples.names:
            raise TrainingError(
                f"{options.validation}: its folders of classes are "
                f"{', '.join(others.names) or 'none'}, those of the other samples "
                f"{', '.join(samples.names) or 'none'}; they have to be the same"
            )
        learnt, held_out = every, Selection(others, np.arange(len(others), dtype=np.int64))
    else:
        learnt, rest = divided(len(samples), options.validation, options.seed, unit)
        if rest.size:
            held_out = Selection(samples, rest)
    if learnt.size < unit:
        raise TrainingError(
            f"the model takes batches of exactly {unit} samples, but there are {learnt.size} to "
            "learn from; add some, or export it with a dynamic batch axis"
        )
    if options.batch % unit:
        raise TrainingError(
            f"the model takes batches of exactly {unit} samples, and --batch {options.batch} is "
            f"no multiple of them; give one, as --batch {-(-options.batch // unit) * unit}"
        )
    return Selection(samples, learnt), held_out


def _settings(
    model: onnx.ModelProto, samples: LabelledSamples, options: TrainOptions, group: Processes
) -> dict[str, str]:
    """What has to be the same for a training to go on after a stop."""
    given = {name: value for name, value in asdict(options).items() if name not in FREE}
    labels = hashlib.sha256(samples.labels.tobytes()).hexdigest()[:16]
    return {
        "the model": digest(model)[:16],
        "samples": f"{len(samples)} with labels {labels}",
        "processes": str(group.count),
    } | {name: str(value) for name, value in given.items()}
