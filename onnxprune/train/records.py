"""What is written down of a training: a row at a time, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.train.checkpoint import Position
from onnxprune.train.evaluation import Score
from onnxprune.train.history import Row


@dataclass(frozen=True)
class Fitted:
    """What a training came to.

    Attributes:
        before: what the network was worth on the validation samples; None without any.
        after: what it is worth now.
        step: the step that the weights are of.
        seconds: time taken, evaluation included.
        rows: the history.
    """

    before: Score | None
    after: Score | None
    step: int
    seconds: float
    rows: list[Row]

    @staticmethod
    def of(rows: Sequence[Row], kept: float | None, seconds: float) -> Fitted:
        """What a history says.

        Args:
            rows: the history.
            kept: the step that the weights are of; None for the last.
            seconds: time taken.
        """
        step = rows[-1]["step"] if kept is None else kept
        after = next(row for row in rows if row["step"] == step)
        return Fitted(_score(rows[0]), _score(after), int(step or 0), seconds, list(rows))


def row_of(position: Position, training: Score, validation: Score | None, rate: float) -> Row:
    """A row of the history.

    Args:
        position: how far the training is.
        training: of the batches of the epoch so far, as they were learnt from.
        validation: of the validation samples, if they were evaluated.
        rate: the learning rate.
    """
    return {
        "step": position.step,
        "epoch": position.epoch,
        "train_loss": _known(training.loss),
        "train_accuracy": _known(training.accuracy),
        "validation_loss": None if validation is None else validation.loss,
        "validation_accuracy": None if validation is None else _known(validation.accuracy),
        "learning_rate": rate,
        "seconds": round(position.seconds, 3),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _score(row: Row) -> Score | None:
    loss, accuracy = row["validation_loss"], row["validation_accuracy"]
    return None if loss is None else Score(loss, math.nan if accuracy is None else accuracy)
