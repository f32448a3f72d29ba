"""What a network is worth: loss and accuracy on samples that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from onnxprune.arrays import IndexArray
from onnxprune.errors import TrainingError
from onnxprune.train.distributed import Processes
from onnxprune.train.method import Changes
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.objective import Objective
from onnxprune.train.samples import Part

Feed = dict[str, Tensor]


class Source(Protocol):
    """Samples by index."""

    def parts(self, indices: IndexArray, size: int) -> Iterator[Part]:
        """The given samples, in as many parts as have to be computed apart."""


@dataclass(frozen=True)
class Selection:
    """Some samples of a source.

    Attributes:
        source: the samples.
        indices: which, shape (samples,).
    """

    source: Source
    indices: IndexArray


@dataclass(frozen=True)
class Batch:
    """Samples as tensors on the device that computes.

    Attributes:
        feed: input name -> tensor of shape (samples, ...).
        labels: their classes, shape (samples,); None if they have none.
    """

    feed: Mapping[str, Tensor]
    labels: Tensor | None

    def __len__(self) -> int:
        return len(next(iter(self.feed.values())))


@dataclass(frozen=True)
class Score:
    """What was measured of a network.

    Attributes:
        loss: the mean over samples.
        accuracy: share that is classified right; not a number where there are no classes.
    """

    loss: float
    accuracy: float

    @property
    def rank(self) -> list[float]:
        """Larger is better: the accuracy, and of equals the loss."""
        return [-1.0 if math.isnan(self.accuracy) else self.accuracy, -self.loss]


def batch_of(part: Part, device: torch.device) -> Batch:
    """A part as tensors on a device."""
    feed = {
        name: torch.from_numpy(np.ascontiguousarray(values)).to(device)
        for name, values in part.feed.items()
    }
    labels = None if part.labels is None else torch.from_numpy(part.labels).to(device)
    return Batch(feed, labels)


def measured(
    network: TrainableNetwork, objective: Objective, batch: Batch, changes: Changes
) -> tuple[Tensor, Tensor]:
    """One forward pass: the sum of the losses, and how many samples are right (or no number)."""
    values = network(batch.feed, taps=changes.taps, absent=changes.absent, wanted=objective.wanted)
    loss = objective.loss(values, batch.feed, batch.labels)
    right = objective.right(values, batch.labels)
    nothing = torch.tensor(math.nan, device=loss.device)
    return loss, nothing if right is None else right.to(loss.dtype)


def evaluate(
    network: TrainableNetwork,
    objective: Objective,
    selection: Selection,
    batch: int,
    processes: Processes,
    changes: Changes,
) -> Score:
    """Loss and accuracy on samples, in float32 and in evaluation mode.

    Raises:
        TrainingError: the samples do not fill the batch that the model is fixed to.
    """
    network.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=processes.device)
    with torch.no_grad():
        for part in selection.source.parts(processes.share(selection.indices), batch):
            own = batch_of(part, processes.device)
            loss, right = measured(network, objective, own, changes)
            sums += torch.stack([loss, right, torch.full_like(loss, len(own))])
    total, right_total, count = processes.total(sums).tolist()
    if not count:
        raise TrainingError("there are too few validation samples to fill one batch; add some")
    return Score(total / count, right_total / count)
