"""One refinement by distillation: a network, its teacher, and the best weights so far.

The loss is the divergence of the outputs from the original's on the samples to fit on (Hinton et
al., arXiv 1503.02531). Its divergence on samples that nothing was fitted on tells which weights are
the best, and the weights that were there before are among those to choose from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import onnx
import torch
from torch import Tensor
from tqdm import tqdm

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.block_outputs import BlockOutput
from onnxprune.calibration import Calibration
from onnxprune.errors import OnnxPruneError
from onnxprune.progress import counter
from onnxprune.refinement import Refine
from onnxprune.runtime import Provider
from onnxprune.train.allowance import Allowance
from onnxprune.train.augmentation import augmentations
from onnxprune.train.decorrelation import Decorrelation
from onnxprune.train.divergence import Measure, block_measure, measures_of, total
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.optimizer import make_optimizer
from onnxprune.train.options import TrainOptions
from onnxprune.train.schedule import one_cycle
from onnxprune.train.teacher import KEPT_BYTES, Lesson, Teacher, tensors

SURE = 1.0
"""Standard errors of the difference on the same samples by which weights must be better than the
untrained ones: of many looks the best would else be chance."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Lessons:
    """What is learnt from, and how.

    Attributes:
        model: the original, in which all tensors that are compared have their names.
        samples: all samples.
        fit: which of them are fitted on.
        choose: which tell how good weights are; nothing was ever fitted on these.
        batch: samples per step.
        blocks: inner tensors that are compared beside the outputs.
        provider: onnxruntime provider; with CUDA, training is on it too.
        max_bytes: bytes of the original's tensors to keep, the rest of which are computed anew
            whenever they are needed; None for a default.
        seed: of the order of the samples.
        progress: whether bars are shown on a terminal.
    """

    model: onnx.ModelProto
    samples: Calibration
    fit: IndexArray
    choose: IndexArray
    batch: int
    blocks: Sequence[BlockOutput] = ()
    provider: Provider = "cpu"
    max_bytes: int | None = None
    seed: int = 0
    progress: bool = False


class Course:
    """A network that is being refined.

    Attributes:
        network: the pruned network.
        per_epoch: steps that take all samples to fit on.
        first: divergence on the samples to choose by, before anything was changed.
        best: the least so far.
        look_seconds: time that one look at these samples takes.
    """

    def __init__(
        self,
        pruned: onnx.ModelProto,
        lessons: Lessons,
        settings: Refine,
        device: torch.device | str = "cpu",
    ) -> None:
        self._lessons, self._settings = lessons, settings
        self.network = TrainableNetwork(pruned).to(device).eval()
        self._names = _trained(self.network)
        decorrelated = settings.method == "decorrelated"
        self._decorrelation = Decorrelation(self.network, pruned) if decorrelated else None
        self._outputs: Sequence[Measure] = ()
        self._blocks: Sequence[Measure] = ()
        self._teacher = Teacher(
            lessons.model,
            tuple(dict.fromkeys([*_numeric(lessons.model), *(b.name for b in lessons.blocks)])),
            lessons.samples,
            lessons.batch,
            lessons.provider,
            KEPT_BYTES if lessons.max_bytes is None else lessons.max_bytes,
        )
        self._step_size = max(lessons.batch // self._teacher.size, 1) * self._teacher.size
        self.per_epoch = -(-lessons.fit.size // self._step_size)
        self._augment = augmentations(settings.augment)
        self._rng = np.random.default_rng(lessons.seed)
        self._start = self._state()
        self._best_weights: Weights | None = None
        self.first = self.best = math.inf
        self._first_rows = torch.zeros(0)
        self.look_seconds = 0.0

    def begin(self) -> None:
        """Look at what both networks make of the samples to choose by.

        Raises:
            OnnxPruneError: no output depends on a weight.
        """
        chosen = list(self._teacher.lessons(self._lessons.choose))
        names = set(self.network.output_names)
        outputs = [{n: a for n, a in t.reference.items() if n in names} for t in chosen]
        made = self.network(tensors(chosen[0].feed, self.network.device))
        self._outputs = [
            measure
            for measure in measures_of(chosen[0].feed, outputs, sum(t.samples for t in chosen))
            if made[measure.name].requires_grad
        ]
        if not self._outputs:
            raise OnnxPruneError(
                "no output of the model is made of floating-point numbers that depend on its "
                "weights, so that nothing can be refined; leave --refine away"
            )
        weight = self._settings.blocks
        self._blocks = [block_measure(b.name, b.kept, weight, chosen) for b in self._lessons.blocks]
        self._first_rows = self.look()
        self.first = self.best = float(self._first_rows.mean())

    @torch.no_grad()
    def decorrelate(self, allowance: Allowance) -> None:
        """Let layers learn to read uncorrelated inputs, while what they compute stays as it is.

        A network that is trained has its weights A already. R is learnt first, for weights that
        stay what they are, and training starts from W = A R^-1 and leaves R alone: moving on, it
        would take A = W R away from what recovery has found faster than gradients bring it back.
        """
        if self._decorrelation is None:
            return
        with torch.random.fork_rng(), self._counter("decorrelating", allowance) as bar:
            for rows in self._steps():
                if allowance.used >= 1:
                    break
                torch.manual_seed(int(self._rng.integers(2**63)))  # by which rows are chosen
                taps = self._decorrelation.taps()
                for lesson in self._teacher.lessons(rows, self._changed if self._augment else None):
                    self.network(tensors(lesson.feed, self.network.device), taps=taps)
                self._decorrelation.learn()
                allowance.taken += 1
                bar.update(min(allowance.progress, allowance.end) - bar.n)
        self._decorrelation.absorb(self.network)
        self._start = self._state()

    def train(self, rate: float, allowance: Allowance, looks: int, label: str) -> float:
        """Train from the first weights; the best weights are noted.

        Args:
            rate: largest learning rate of the one cycle.
            allowance: how long.
            looks: how often the divergence is looked at.
            label: for the progress bar.

        Returns:
            The divergence at the end.
        """
        self.network.load_state_dict(self._start)
        optimizer = self._optimizer()
        last, seen = self.first, 0
        with self._counter(label, allowance) as bar:
            for rows in self._steps():
                if allowance.used >= 1:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = rate * one_cycle(allowance.used, 0.0)
                loss = self._step(optimizer, rows)
                allowance.taken += 1
                if not math.isfinite(loss):
                    return math.inf
                if allowance.used >= (seen + 1) / looks:
                    seen = int(allowance.used * looks)
                    last = self._note(self.look())
                bar.set_postfix(loss=f"{loss:.4g}", best=f"{self.best:.4g}", refresh=False)
                bar.update(min(allowance.progress, allowance.end) - bar.n)
        return last

    @torch.no_grad()
    def look(self) -> Tensor:
        """Divergence of the outputs on every sample to choose by, shape (samples,)."""
        start = time.perf_counter()
        lessons = self._teacher.lessons(self._lessons.choose)
        rows = torch.cat([self._rows(lesson, self._outputs).double() for lesson in lessons]).cpu()
        self.look_seconds = time.perf_counter() - start
        return rows

    def changed(self) -> dict[str, Array]:
        """The best weights by name; none if those of the beginning are the best."""
        found = self._best_weights or {}
        return {name: value.cpu().numpy() for name, value in found.items()}

    def _steps(self) -> Iterator[IndexArray]:
        """The samples of every step, in an order drawn anew for each pass."""
        while True:
            order = self._rng.permutation(self._lessons.fit)
            for start in range(0, order.size, self._step_size):
                yield order[start : start + self._step_size]

    def _step(self, optimizer: torch.optim.Optimizer, rows: IndexArray) -> float:
        """One step on the mean over these samples, which may come in several batches."""
        measures = [*self._outputs, *self._blocks]
        optimizer.zero_grad(set_to_none=True)
        summed = 0.0
        for lesson in self._teacher.lessons(rows, self._changed if self._augment else None):
            loss = self._rows(lesson, measures).sum() / rows.size
            loss.backward()  # type: ignore[no-untyped-call]
            summed += float(loss.detach())
        optimizer.step()
        return summed

    def _changed(self, feed: Feed) -> Feed:
        for change in self._augment:
            feed = change(feed, self._rng)
        return feed

    def _rows(self, lesson: Lesson, measures: Sequence[Measure]) -> Tensor:
        device = self.network.device
        names = tuple(dict.fromkeys(measure.name for measure in measures))
        made = self.network(tensors(lesson.feed, device), wanted=names)
        reference = tensors({name: lesson.reference[name] for name in names}, device)
        return total(measures, reference, made, lesson.samples)

    def _optimizer(self) -> torch.optim.Optimizer:
        # no decay: the weights are where they should be, not too large
        options = TrainOptions(optimizer=self._settings.optimizer, weight_decay=0.0)
        return make_optimizer(self.network, options)

    @torch.no_grad()
    def _weights(self) -> Weights:
        """What the network computes with."""
        return {name: self.network.effective(name).clone() for name in self._names}

    def _state(self) -> Weights:
        """All that training moves."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def _counter(self, label: str, allowance: Allowance) -> tqdm[NoReturn]:
        progress = self._lessons.progress
        return counter(label, allowance.end, progress=progress, unit=allowance.unit)

    def _note(self, rows: Tensor) -> float:
        """Keep the weights if they are the best so far, and surely better than the first ones.

        Returns:
            The mean over the rows, infinite if it is no number.
        """
        mean = float(rows.mean())
        if not math.isfinite(mean):
            return math.inf
        change = rows - self._first_rows
        error = float(change.std()) / math.sqrt(len(rows)) if len(rows) > 1 else 0.0
        if mean < self.best and float(change.mean()) < -SURE * error:
            self.best, self._best_weights = mean, self._weights()
        return mean


def _trained(network: TrainableNetwork) -> list[str]:
    """Names of the weights that are trained: those that are one tensor of the file.

    What several layers share in the file, and the network keeps apart, stays as it is, so that the
    file keeps its structure.
    """
    untied = network.graph.untied
    shared = {*untied, *(u.source for u in untied.values())}
    for name, weight in network.weights.items():
        weight.requires_grad_(name not in shared)
    return [name for name in network.weights if name not in shared]


def _numeric(model: onnx.ModelProto) -> Iterator[str]:
    """Names of the outputs that are tensors of numbers."""
    for value in model.graph.output:
        kind = value.type.tensor_type.elem_type
        if value.type.HasField("tensor_type") and kind != onnx.TensorProto.STRING:
            yield value.name
