"""How far a training is, by its steps or by the clock."""

from __future__ import annotations

import time

from onnxprune.train.checkpoint import Position
from onnxprune.train.distributed import Processes
from onnxprune.train.options import TrainOptions


class Pace:
    """What limits a training: a number of epochs, or time.

    Args:
        options: they say which.
        samples: how many there are to learn from.
        processes: all go by the clock of the first.

    Attributes:
        steps: steps of an epoch; what does not fill a batch is left out of it.
        timed: whether time is the limit.
    """

    def __init__(self, options: TrainOptions, samples: int, processes: Processes) -> None:
        self.steps = max(samples // options.batch, 1)
        self.timed = options.seconds is not None
        self._seconds = options.seconds or 0.0
        self._epochs = options.epoch_limit or 0
        self._processes = processes
        self._before, self._start = 0.0, time.monotonic()

    def begin(self, position: Position) -> None:
        """Start the clock, from what a training took before it was stopped."""
        self._before, self._start = position.seconds, time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        return self._before + time.monotonic() - self._start

    @property
    def end(self) -> float:
        """Where it ends, in seconds or steps."""
        return self._seconds if self.timed else self._epochs * self.steps

    def now(self, position: Position) -> float:
        """How far it is, in seconds or steps."""
        return self._processes.agreed(self.elapsed) if self.timed else position.step

    def is_over(self, position: Position) -> bool:
        """Whether the limit is reached."""
        return self.now(position) >= self.end

    def done(self, position: Position) -> float:
        """The share of the training that is done in the middle of the coming step."""
        return min((self.now(position) + (0.0 if self.timed else 0.5)) / self.end, 1.0)

    def total(self, position: Position, done: float) -> int:
        """How many steps there will be, as far as can be told."""
        if not self.timed:
            return self._epochs * self.steps
        return max(round(position.step / done) if done else 0, position.step + 1)
