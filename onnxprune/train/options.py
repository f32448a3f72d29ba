"""Settings of training. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from onnxprune.calibration import Preprocessing
from onnxprune.labels import Labels
from onnxprune.train.methods import METHODS

OptimizerName = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "onecycle", "constant"]
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bf16", "fp16"]
Keep = Literal["best", "last"]

RATES: Mapping[OptimizerName, float] = {"adamw": 1e-3, "adam": 1e-3, "sgd": 0.05}
DECAYS: Mapping[OptimizerName, float] = {"adamw": 0.01, "adam": 0.0, "sgd": 5e-4}
DEFAULT_EPOCHS = 10
LOGS = (".csv", ".jsonl")


@dataclass(frozen=True)
class TrainOptions:
    """How a network is trained.

    Attributes:
        method: a name from ``METHODS``.
        method_settings: settings of the method.
        epochs: passes over the training samples; ``DEFAULT_EPOCHS`` without a limit of time.
        seconds: limit of the time that training takes, evaluation included.
        batch: samples per step, over all processes.
        optimizer: adamw, adam or sgd (with Nesterov's momentum).
        rate: largest learning rate; None for the optimizer's own in ``RATES``.
        schedule: how the rate goes on; see ``schedule``.
        warmup: share of the training in which the cosine schedule rises to the largest rate.
        momentum: of sgd.
        weight_decay: of weights with several axes; None for the optimizer's own in ``DECAYS``.
        smoothing: share of the probability that labels give to all classes alike.
        clip: largest norm of the gradient; None for no limit.
        augment: see ``augmentation``.
        validation: share of the samples that is only evaluated, or more samples; 0 for none.
        labels: classes of the samples, unless these hold them; see ``samples``.
        validation_labels: those of separate validation samples.
        preprocessing: of image folders.
        keep: write the weights that were best on the validation samples, or the last ones.
        fresh: start from random weights.
        freeze_norms: keep BatchNormalization to its running statistics.
        seed: of the order of the samples, of what is drawn and of the split.
        device: cpu or cuda.
        precision: of the forward and backward pass; weights stay float32.
        checkpoint: file to go on from after a stop.
        checkpoint_seconds: write it at the end of every epoch, and after so much time within one.
        resume: go on from the checkpoint.
        history: file of the history, .csv or .jsonl.
        history_every: steps after which a row is entered within an epoch; None for none.
        progress: whether bars are shown on a terminal.
    """

    method: str = "backprop"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    seconds: float | None = None
    batch: int = 64
    optimizer: OptimizerName = "adamw"
    rate: float | None = None
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float | None = None
    smoothing: float = 0.0
    clip: float | None = None
    augment: tuple[str, ...] = ()
    validation: float | str = 0.1
    labels: Labels | None = None
    validation_labels: Labels | None = None
    preprocessing: Preprocessing | None = None
    keep: Keep = "best"
    fresh: bool = False
    freeze_norms: bool = False
    seed: int = 0
    device: Device = "cpu"
    precision: Precision = "float32"
    checkpoint: Path | None = None
    checkpoint_seconds: float = 600.0
    resume: bool = False
    history: Path | None = None
    history_every: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        self._check_words()
        METHODS[self.method].check(self.method_settings)
        self._check_numbers()
        if self.epochs is not None and self.seconds is not None:
            raise ValueError("training ends after a number of epochs or a time, not both")
        if self.resume and self.checkpoint is None:
            raise ValueError("to resume, name the checkpoint")
        if self.history is not None and self.history.suffix.lower() not in LOGS:
            raise ValueError(f"{self.history}: name a history that ends in {' or '.join(LOGS)}")

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch", "history_every"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is at least 1, not {count}")
        for name in ("seconds", "rate", "clip"):
            amount = getattr(self, name)
            if amount is not None and not amount > 0:
                raise ValueError(f"{name} is more than 0, not {amount:g}")
        for name in ("warmup", "momentum", "smoothing", "validation"):
            share = getattr(self, name)
            if not isinstance(share, str) and not 0 <= share < 1:
                raise ValueError(f"{name} is a share, from 0 to below 1, not {share:g}")
        for name in ("weight_decay", "checkpoint_seconds"):
            amount = getattr(self, name)
            if amount is not None and not amount >= 0:
                raise ValueError(f"{name} is at least 0, not {amount:g}")

    def _check_words(self) -> None:
        for name, known in (
            ("method", tuple(METHODS)),
            ("optimizer", get_args(OptimizerName)),
            ("schedule", get_args(Schedule)),
            ("device", get_args(Device)),
            ("precision", get_args(Precision)),
            ("keep", get_args(Keep)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} '{getattr(self, name)}'; known: {', '.join(known)}"
                )

    @property
    def epoch_limit(self) -> int | None:
        """Epochs to train; None where the time limits it."""
        return DEFAULT_EPOCHS if self.epochs is None and self.seconds is None else self.epochs

    @property
    def largest_rate(self) -> float:
        """The learning rate that the schedule scales."""
        return RATES[self.optimizer] if self.rate is None else self.rate

    @property
    def decay(self) -> float:
        """The weight decay."""
        return DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay
