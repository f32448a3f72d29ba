"""The training loop. It knows no method, and nothing of what is minimised."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from onnxprune.arrays import IndexArray
from onnxprune.errors import TrainingError
from onnxprune.progress import counter
from onnxprune.train.augmentation import Augmentation
from onnxprune.train.checkpoint import Best, Checkpoint, Position, load_checkpoint
from onnxprune.train.distributed import Processes
from onnxprune.train.evaluation import Batch, Score, Selection, batch_of, evaluate, measured
from onnxprune.train.history import History, Row
from onnxprune.train.method import Changes, Method, Step
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.objective import Objective
from onnxprune.train.optimizer import make_optimizer
from onnxprune.train.options import TrainOptions
from onnxprune.train.pace import Pace
from onnxprune.train.records import Fitted, row_of
from onnxprune.train.repeated_draws import RepeatedDraws
from onnxprune.train.schedule import SCHEDULES

LOOKS = 16
"""Steps between two looks at the loss: each waits for the device."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains a network.

    Args:
        network: it is changed.
        method: what is done beside following the gradient.
        objective: what is minimised.
        training: samples to learn from.
        validation: samples to choose the best weights by; None for none.
        options: settings.
        processes: who trains together.
        augment: changes of the training batches.
        settings: what has to be the same when the training goes on after a stop.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        method: Method,
        objective: Objective,
        training: Selection,
        validation: Selection | None,
        options: TrainOptions,
        processes: Processes,
        augment: Sequence[Augmentation] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._network, self._method, self._objective = network, method, objective
        self._training, self._validation = training, validation
        self._options, self._processes, self._augment = options, processes, augment
        self._settings = dict(settings or {})
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(network, options)
        half = options.precision == "fp16"
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=half)
        self._pace = Pace(options, len(training.indices), processes)
        self._position, self._best = Position(), Best()
        self._sums = torch.zeros(3, dtype=torch.float64, device=processes.device)
        network.frozen_statistics = options.freeze_norms

    def run(self) -> Fitted:
        """Train until the limit, and leave the network with the weights to keep.

        Raises:
            TrainingError: the loss is not finite, or the checkpoint does not fit.
        """
        log = self._options.history if self._processes.leads else None
        if self._options.resume:
            self._history = History(log, self._resume())
        else:
            self._history = History(log)
            self._record()
        self._pace.begin(self._position)
        self._saved = time.monotonic()
        with self._bar() as bar:
            while not self._pace.is_over(self._position):
                self._epoch(bar)
        if self._best.network is not None:
            self._network.load_state_dict(self._best.network)
        kept = None if self._best.network is None else self._best.step
        return Fitted.of(self._history.rows, kept, self._position.seconds)

    # --- an epoch, a step ------------------------------------------------------------------------

    def _epoch(self, bar: tqdm[NoReturn]) -> None:
        batch, position, pace = self._options.batch, self._position, self._pace
        rng = np.random.default_rng([self._options.seed, position.epoch])
        order = self._training.indices[rng.permutation(len(self._training.indices))]
        while position.place < pace.steps:
            start = position.place * batch
            self._step(order[start : start + batch])
            position.step, position.place = position.step + 1, position.place + 1
            position.seconds = pace.elapsed
            self._show(bar)
            if pace.timed and pace.is_over(position):
                break
            if position.place < pace.steps:
                self._note_in_time()
                self._save_in_time()
        if position.place == pace.steps:
            position.epoch, position.place = position.epoch + 1, 0
        self._record()
        self._sums.zero_()
        self._save()

    def _step(self, indices: IndexArray) -> None:
        batches = list(self._batches(indices, self._seed()))
        step = self._described(batches)
        for group in self._optimizer.param_groups:
            group["lr"] = step.rate
        self._optimizer.zero_grad(set_to_none=True)
        self._network.train()
        step = replace(step, value=self._descend(step, batches, self._method.before_forward(step)))
        self._processes.add_gradients(self._parameters)
        self._scaler.unscale_(self._optimizer)
        self._method.after_backward(step)
        if self._options.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._options.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._method.after_step(step)
        self._drop_cut()

    def _descend(self, step: Step, batches: Sequence[Batch], changes: Changes) -> Tensor:
        """The gradient of the mean loss over all samples of all processes, and of the penalty.

        Returns:
            The mean loss over this process's samples.
        """
        own = float(sum(map(len, batches)))
        count = self._processes.total(torch.tensor(own, device=self._processes.device))
        summed = torch.zeros((), device=self._processes.device)
        for batch in batches:
            loss, right = self._forward(batch, changes)
            torch.autograd.backward(self._scaler.scale(loss / count))
            summed += loss.detach()
            self._sums += torch.stack([loss.detach(), right, torch.full_like(right, len(batch))])
        penalty = self._method.penalty(step)
        if isinstance(penalty, Tensor):
            torch.autograd.backward(self._scaler.scale(penalty / self._processes.count))
        return summed / own

    def _drop_cut(self) -> None:
        """Forget weights that a method has cut out of the network; all else keeps its state."""
        left = {id(parameter) for parameter in self._network.parameters()}
        if len(left) >= len(self._parameters):
            return
        self._parameters = [p for p in self._parameters if id(p) in left]
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in left:
                    self._optimizer.state.pop(parameter, None)
            group["params"] = [p for p in group["params"] if id(p) in left]

    def _forward(self, batch: Batch, changes: Changes) -> tuple[Tensor, Tensor]:
        kind = AUTOCAST.get(self._options.precision)
        with torch.autocast(self._processes.device.type, kind, enabled=kind is not None):
            return measured(self._network, self._objective, batch, changes)

    def _described(self, batches: Sequence[Batch]) -> Step:
        """The step as the method sees it."""
        draws = RepeatedDraws(self._processes.device)

        def loss(changes: Changes) -> Tensor:
            mode = self._network.graph.mode
            mode.updating = False
            try:
                with draws.again():
                    losses = [self._forward(batch, changes)[0] for batch in batches]
            finally:
                mode.updating = True
            return torch.stack(losses).sum() / sum(map(len, batches))

        def gradient(tensor: Tensor) -> Tensor | None:
            if tensor.grad is None:
                return None
            whole = self._processes.total(tensor.grad) / self._scaler.get_scale()
            skipped = self._scaler.is_enabled() and not bool(torch.isfinite(whole).all())
            return None if skipped else whole

        done = self._pace.done(self._position)
        share = SCHEDULES[self._options.schedule](done, self._options.warmup)
        return Step(
            self._position.step,
            self._pace.total(self._position, done),
            batches[0].feed,
            batches[0].labels,
            loss,
            share * self._options.largest_rate,
            self._processes.average,
            gradient,
        )

    def _batches(self, indices: IndexArray, rng: np.random.Generator) -> Iterator[Batch]:
        """This process's share of a batch, changed, in parts that are computed one by one."""
        share = self._processes.share(indices)
        for part in self._training.source.parts(share, self._options.batch):
            feed = part.feed
            for change in self._augment:
                feed = change(feed, rng)
            yield batch_of(replace(part, feed=feed), self._processes.device)

    def _seed(self) -> np.random.Generator:
        """Seed all that a step draws, so that it does not depend on what was drawn before."""
        numbers = [self._options.seed, self._processes.rank, self._position.step]
        rng = np.random.default_rng(numbers)
        torch.manual_seed(int(rng.integers(2**63)))
        return rng

    # --- what is shown and recorded --------------------------------------------------------------

    @contextmanager
    def _bar(self) -> Iterator[tqdm[NoReturn]]:
        wanted = self._options.progress and self._processes.leads
        unit = "s" if self._pace.timed else "steps"
        start, end = self._pace.now(self._position), self._pace.end
        with counter("training", end, start=start, progress=wanted, unit=unit) as bar:
            yield bar

    def _show(self, bar: tqdm[NoReturn]) -> None:
        bar.update((self._position.seconds if self._pace.timed else self._position.step) - bar.n)
        if self._position.step % LOOKS == 0:
            loss, accuracy = self._means(self._sums)
            known = {} if math.isnan(accuracy) else {"accuracy": f"{accuracy:.1%}"}
            bar.set_postfix({"loss": f"{loss:.4f}"} | known, refresh=False)

    def _means(self, sums: Tensor) -> tuple[float, float]:
        """Mean loss and accuracy of the epoch so far.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss, right, count = sums.tolist()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss:g} at step {self._position.step}, with a learning rate of "
                f"{self._rate:g}: take a lower one (--learning-rate), or limit the gradient "
                "(--clip 1)"
            )
        return (loss / count, right / count) if count else (math.nan, math.nan)

    @property
    def _rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"]) if self._position.step else 0.0

    def _note_in_time(self) -> None:
        """Enter a row of the epoch so far, where such rows are asked for."""
        every = self._options.history_every
        if every is not None and self._position.step % every == 0:
            self._enter(None)

    def _record(self) -> None:
        """Evaluate, enter a row, and remember the network if it is the best so far."""
        processes = self._processes
        processes.average_buffers(list(self._network.statistics.values()))
        score = None
        if self._validation is not None:
            changes, size = self._method.evaluation(), self._options.batch
            score = evaluate(
                self._network, self._objective, self._validation, size, processes, changes
            )
            self._keep(score)
        self._enter(score)

    def _enter(self, score: Score | None) -> None:
        position = self._position
        loss, accuracy = self._means(self._processes.total(self._sums))
        row = row_of(position, Score(loss, accuracy), score, self._rate)
        self._history.add(row | dict(self._method.columns()))

    def _keep(self, score: Score) -> None:
        wanted = self._options.keep == "best" and self._method.may_keep()
        if wanted and score.rank > self._best.rank:
            state = self._network.state_dict()
            copied = {name: value.detach().clone() for name, value in state.items()}
            self._best = Best(self._position.step, score.rank, copied)

    # --- checkpoints -----------------------------------------------------------------------------

    def _save_in_time(self) -> None:
        if time.monotonic() - self._saved >= self._options.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        path = self._options.checkpoint
        if path is None or not self._processes.leads:
            return
        self._means(self._sums)  # nothing is saved that has gone astray
        self._position.sums = self._sums.tolist()
        Checkpoint(
            self._settings,
            self._position,
            self._best,
            self._network.state_dict(),
            self._optimizer.state_dict(),
            self._scaler.state_dict(),
            self._method.state_dict(),
            self._history.rows,
        ).save(path)
        self._saved = time.monotonic()

    def _resume(self) -> list[Row]:
        assert self._options.checkpoint is not None
        device = self._processes.device
        found = load_checkpoint(self._options.checkpoint, self._settings, device)
        self._method.load_state_dict(found.method)  # it cuts what it had cut
        self._drop_cut()
        self._network.load_state_dict(found.network)
        self._optimizer.load_state_dict(found.optimizer)
        self._scaler.load_state_dict(found.scaler)
        self._position, self._best = found.position, found.best
        if self._processes.leads:  # the sums are of the process that wrote them
            self._sums = torch.tensor(found.position.sums, dtype=torch.float64, device=device)
        return found.rows
