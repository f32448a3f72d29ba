"""Checkpoints: all that a training needs to go on as if it had not been stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxprune.errors import TrainingError
from onnxprune.replacing import replacing
from onnxprune.train.history import Row

FORMAT = 1


@dataclass
class Position:
    """How far a training is.

    Attributes:
        step: steps taken.
        epoch: epochs finished.
        place: steps taken in the epoch that has begun.
        seconds: time that it has taken.
        sums: loss, samples classified right and samples so far in this epoch.
    """

    step: int = 0
    epoch: int = 0
    place: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])


@dataclass
class Best:
    """The network with the best evaluation so far.

    Attributes:
        step: steps taken when it was evaluated.
        rank: what was measured of it; larger is better.
        network: its weights and running statistics; None as long as there is none.
    """

    step: int = 0
    rank: list[float] = field(default_factory=list)
    network: dict[str, Tensor] | None = None


@dataclass
class Checkpoint:
    """The state of a training. Random numbers follow from the seed and the step.

    Attributes:
        settings: what has to be the same for it to go on: name -> value.
        position: how far it is.
        best: the best so far.
        network: weights and running statistics.
        optimizer: its state.
        scaler: that of the scaler of gradients in half precision.
        method: that of the method.
        rows: the history.
    """

    settings: dict[str, str]
    position: Position
    best: Best
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    method: dict[str, Any]
    rows: list[Row]

    def save(self, path: Path) -> None:
        """Write it; a file that is there is replaced only when the new one is complete.

        Raises:
            OnnxPruneError: the file cannot be written.
        """
        parts = {"position": vars(self.position), "best": vars(self.best)}
        state = {"format": FORMAT} | vars(self) | parts
        with replacing(path) as temporary:
            torch.save(state, temporary)


def load_checkpoint(path: Path, settings: Mapping[str, str], device: torch.device) -> Checkpoint:
    """Read a checkpoint; code in it is never run.

    Args:
        path: the file.
        settings: those of the training that is to go on.
        device: where its tensors go.

    Raises:
        TrainingError: it cannot be read, or is of a training with other settings.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such checkpoint; train without --resume to start anew")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise TrainingError(f"{path}: cannot be read as a checkpoint ({error})") from error
    try:
        if state.pop("format") != FORMAT:
            raise TrainingError(f"{path}: is of another version of onnxprune; start anew")
        parts = {"position": Position(**state["position"]), "best": Best(**state["best"])}
        found = Checkpoint(**state | parts)
    except (AttributeError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: not a checkpoint of onnxprune ({error})") from error
    for name, value in settings.items():
        if found.settings.get(name) != value:
            raise TrainingError(
                f"{path}: was written with {name} {found.settings.get(name)}, now it is {value}: "
                "give the same, or start anew without --resume"
            )
    return found
