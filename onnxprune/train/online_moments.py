"""Moments that training learns on the way, for pruning without a calibration pass.

At rest a triangular transform has R = L^-1 and E[z^2] = D of E[x x^T] = L D L^T, so that
E[x x^T] = R^-1 D R^-T. With the constant 1 behind x that is all that pruning by plain channels asks
of samples (Subspace Node Pruning, arXiv 2405.17506): rankings, ratios and recovery follow from the
file as they do from samples. Convolutions are seen as ``snp`` sees them: a row is the channels at
one position, not a patch.

The activations are those of training: BatchNormalization uses the batch's statistics there, and
weights still move. R forgets with a time of 1 / eps steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.arrays import Array
from onnxprune.canonical import canonicalise
from onnxprune.gram import Gram
from onnxprune.linear_map import FeatureSpec
from onnxprune.plain_channels import plain_specs
from onnxprune.rewrite import digest
from onnxprune.saved_moments import SavedMoments
from onnxprune.statistics import sums_bytes
from onnxprune.train.decorrelating_rule import DecorrelatingRule
from onnxprune.train.decorrelator import Decorrelator
from onnxprune.train.evaluation import Selection
from onnxprune.train.method import Changes, Method, Step
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.observation import Observer, SpecOf, in_front_of_dropout
from onnxprune.train.sampled_rows import RowSampler

RATE = 0.02
"""Eps of the relative steps of R: moments are as exact as those of 100 steps' rows."""

FEW_ROWS = RowSampler()
MOST_SAMPLES, MOST_BYTES = 256, 32 << 20
"""What lies beside the moments at most."""

logger = logging.getLogger(__name__)


class OnlineMoments:
    """Another method of training, with the moments of what layers read learnt beside it.

    Nothing of the training changes: the transforms only watch. They are modules of the network, so
    that its state has those of the weights it has.

    Args:
        method: the other method.
        network: the network.
        model: what the network was made of.
        sampler: how many rows are taken of a batch.
        rate: eps of the relative steps of R.

    Raises:
        UnsupportedModelError: the model's channels cannot be told, as of a quantised one.
    """

    def __init__(
        self,
        method: Method,
        network: TrainableNetwork,
        model: onnx.ModelProto,
        *,
        sampler: RowSampler = FEW_ROWS,
        rate: float = RATE,
    ) -> None:
        self._method = method
        self._observer = Observer(sampler)
        self._learners: dict[str, Decorrelator] = {}
        self._specs: dict[str, FeatureSpec] = {}
        rule = DecorrelatingRule(rate, 0.0, triangular=True, relative=True)
        modules = torch.nn.ModuleDict()
        known = {*network.input_names, *(o for node in network.graph.nodes for o in node.outputs)}
        for number, (spec, size) in enumerate(_sizes(model).items()):
            if spec.tensor not in known:
                logger.info("moments of '%s' cannot be learnt: the file lacks it", spec.tensor)
                continue
            name = f"{number}"
            self._specs[name] = spec
            self._learners[name] = Decorrelator(spec.parts, size, rule, constant=True)
            modules[name] = self._learners[name].to(network.device)
            tensor = in_front_of_dropout(network.graph, spec.tensor)
            self._observer.watch(tensor, name, _always(spec))
        network.add_module("moments", modules)

    def before_forward(self, step: Step) -> Changes:
        """What the other method does differently, and rows are taken."""
        changes = self._method.before_forward(step)
        return Changes(self._observer.taps(changes.taps), changes.absent)

    def penalty(self, step: Step) -> Tensor | float:
        """The other method's."""
        return self._method.penalty(step)

    def after_backward(self, step: Step) -> None:
        """The other method's."""
        self._method.after_backward(step)

    def after_step(self, step: Step) -> None:
        """The other method's, then the transforms learn."""
        self._method.after_step(step)
        for name, rows in self._observer.taken().items():
            self._learners[name].learn(rows, step.average)

    def evaluation(self) -> Changes:
        """The other method's."""
        return self._method.evaluation()

    def may_keep(self) -> bool:
        """The other method's."""
        return self._method.may_keep()

    def columns(self) -> Mapping[str, float]:
        """The other method's."""
        return self._method.columns()

    def state_dict(self) -> dict[str, Any]:
        """The other method's; what was learnt is the network's own."""
        return self._method.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._method.load_state_dict(state)

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The other method's."""
        return self._method.finish(model)

    def notes(self) -> Sequence[str]:
        """The other method's."""
        return self._method.notes()

    def moments(self, model: onnx.ModelProto, samples: Mapping[str, Array]) -> SavedMoments:
        """What was learnt, as moments of a finished model.

        Moments of what it no longer reads, or of other widths, are left out.

        Args:
            model: what ``finish`` returned.
            samples: input name -> a few samples, to measure pruned models with.
        """
        sizes = _sizes(model)
        grams = {
            spec: gram_of(learner)
            for spec, learner in zip(self._specs.values(), self._learners.values(), strict=True)
            if sizes.get(spec) == learner.transform.shape[1] - 1 and int(learner.steps)
        }
        return SavedMoments(digest(model), grams, {k: np.asarray(v) for k, v in samples.items()})


def few_samples(selection: Selection, extent: int) -> dict[str, Array]:
    """A few samples to lie beside moments: input name -> array.

    Args:
        selection: what they are taken of.
        extent: the batch size that the model is fixed to, or 1.
    """
    first = next(selection.source.parts(selection.indices[:extent], extent)).feed
    size = sum(array.nbytes for array in first.values()) // extent
    count = max(min(MOST_SAMPLES, MOST_BYTES // max(size, 1)) // extent, 1) * extent
    feeds = [part.feed for part in selection.source.parts(selection.indices[:count], count)]
    shapes = {name: array.shape[1:] for name, array in first.items()}
    alike = [f for f in feeds if all(f[name].shape[1:] == shapes[name] for name in shapes)]
    return {name: np.concatenate([feed[name] for feed in alike]) for name in first}


def _sizes(model: onnx.ModelProto) -> dict[FeatureSpec, int]:
    """What pruning by plain channels asks for, and how many features each part of it has."""
    specs = plain_specs(model)
    bytes_of = sums_bytes(canonicalise(model), specs)
    return {spec: math.isqrt(bytes_of[spec] // (8 * spec.parts)) - 1 for spec in specs}


def _always(spec: FeatureSpec) -> SpecOf:
    return lambda _: spec


def gram_of(decorrelator: Decorrelator) -> Gram:
    """The Gram matrices that R and D stand for, the constant last.

    They rest on as many rows as would tell R as exactly: a step of relative size eps from n rows
    leaves R the noise of 2 n / eps rows (derived here, for small eps), or of all there were.

    Args:
        decorrelator: triangular, with the constant.

    Raises:
        ValueError: it is not triangular, has no constant, or has not learnt anything.
    """
    if not (decorrelator.rule.triangular and decorrelator.constant):
        raise ValueError("only a triangular transform with the constant holds a Gram matrix")
    steps = int(decorrelator.steps)
    if not steps:
        raise ValueError("the transform has learnt from no rows")
    transform = decorrelator.transform.double().cpu()
    parts, size = transform.shape[:2]
    unit = torch.eye(size, dtype=transform.dtype).expand(parts, -1, -1)
    lower = torch.linalg.solve_triangular(transform, unit, upper=False)
    scaled = lower * decorrelator.second.double().cpu().clamp(min=0.0).sqrt()[:, None, :]
    moments = scaled @ scaled.mT
    # the constant's own moment is 1 only at rest
    norm = torch.ones(parts, size, dtype=moments.dtype)
    norm[:, -1] = moments[:, -1, -1].clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
    moments = moments * norm[:, :, None] * norm[:, None, :]
    seen = int(decorrelator.rows)
    rows = round(min(2.0 * seen / steps / max(decorrelator.rule.rate, 1e-12), float(seen)))
    gram = Gram(parts, size - 1)
    gram.add((moments * rows).numpy())
    return gram
