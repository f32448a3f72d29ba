"""How far outputs are from those of the original, differentiable; ``comparison`` in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.comparison import TEMPERATURE, is_distribution, is_numeric, looks_like_scores
from onnxprune.errors import OnnxPruneError
from onnxprune.train.teacher import Lesson

Kind = Literal["logits", "probabilities", "values"]
SMALLEST = 1e-12
"""Probabilities below it count as it."""


@dataclass(frozen=True)
class Measure:
    """How far one tensor is from the original's.

    Attributes:
        name: of the tensor.
        kind: class scores as logits or probabilities, whose Kullback-Leibler divergence at
            ``TEMPERATURE`` counts, or values, whose squared error does.
        scale: of values, the mean over samples of the original's sum of squares.
        weight: factor of it among others.
        kept: of each axis (before the cut) the entries that the pruned network has; of the axes
            that are named.
    """

    name: str
    kind: Kind = "values"
    scale: float = 1.0
    weight: float = 1.0
    kept: Mapping[int, IndexArray] | None = None

    def rows(self, reference: Tensor, changed: Tensor) -> Tensor:
        """What the measure is the mean of, for every index of the first axis, shape (extent,).

        Raises:
            OnnxPruneError: the shapes differ.
        """
        for axis, entries in (self.kept or {}).items():
            index = torch.from_numpy(entries).to(reference.device)
            reference = reference.index_select(axis, index)
        if reference.shape != changed.shape:
            raise OnnxPruneError(
                f"'{self.name}' has shape {list(reference.shape)} in the original and "
                f"{list(changed.shape)} in the pruned network: outputs whose shape depends on "
                "the values cannot be refined"
            )
        if self.kind == "values":
            error: Tensor = (changed.float() - reference.float()).flatten(1).square().sum(1)
            return self.weight / self.scale * error
        old, new = (self._logs(scores.float().flatten(1)) for scores in (reference, changed))
        divergence = functional.kl_div(new, old, reduction="none", log_target=True).sum(1)
        return self.weight * TEMPERATURE**2 * divergence

    def _logs(self, rows: Tensor) -> Tensor:
        """Logarithms of softened probabilities."""
        logs = rows.clamp_min(SMALLEST).log() if self.kind == "probabilities" else rows
        return functional.log_softmax(logs / TEMPERATURE, dim=1)


def measures_of(feed: Feed, batches: Sequence[Mapping[str, Array]], samples: int) -> list[Measure]:
    """How the outputs of a network are measured: those that are floating-point numbers.

    Args:
        feed: one batch of samples.
        batches: the original's outputs for some batches, that of the feed first.
        samples: how many samples these are.
    """
    found = []
    for name, output in batches[0].items():
        if not is_numeric(output) or output.dtype.kind != "f" or not output.ndim:
            continue
        if looks_like_scores(output, feed):
            rows = [batch[name].reshape(batch[name].shape[0], -1) for batch in batches]
            known = all(is_distribution(part) for part in rows)
            found.append(Measure(name, "probabilities" if known else "logits"))
        else:
            squares = sum(float((batch[name].astype("f8") ** 2).sum()) for batch in batches)
            found.append(Measure(name, "values", squares / samples or 1.0))
    return found


def block_measure(
    name: str, kept: Mapping[int, IndexArray], weight: float, lessons: Sequence[Lesson]
) -> Measure:
    """How an inner tensor is measured: its squared error relative to what of it survives.

    Args:
        name: of the tensor.
        kept: of the axes that are cut, the entries that survive.
        weight: factor of the measure among others.
        lessons: samples with the original's values, which scale it.
    """
    squares = 0.0
    for lesson in lessons:
        values = lesson.reference[name]
        for axis, entries in kept.items():
            values = values.take(entries, axis)
        squares += float((values.astype("f8") ** 2).sum())
    samples = sum(lesson.samples for lesson in lessons)
    return Measure(name, "values", squares / samples or 1.0, weight, kept)


def total(
    measures: Sequence[Measure],
    reference: Mapping[str, Tensor],
    changed: Mapping[str, Tensor],
    samples: int,
) -> Tensor:
    """The measures of every sample, added up, shape (samples,).

    A tensor whose first axis does not count samples says the same of all of them.
    """
    found = []
    for measure in measures:
        rows = measure.rows(reference[measure.name], changed[measure.name])
        single = rows.shape[0] != samples
        found.append((rows.sum() / samples).expand(samples) if single else rows)
    return torch.stack(found).sum(0)
