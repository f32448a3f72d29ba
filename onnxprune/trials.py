"""Trial prunings: what the outputs lose when groups keep so many channels, tried on a few samples.

A trial is recovered as the result would be, only more quickly: least squares with one ridge, in
order if the result is (see ``sequential``), on few samples. It needs no new graph: all trials are
variants of one network at full size, and each costs what lies behind its first cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.arrays import Array, Feed
from onnxprune.batches import Batches
from onnxprune.comparison import OutputDistance
from onnxprune.errors import UnsupportedModelError
from onnxprune.executor import Executor
from onnxprune.options import Options
from onnxprune.plan import Weights
from onnxprune.progress import shown
from onnxprune.recovery import FixedRidge
from onnxprune.refit import Prior, padded
from onnxprune.runtime import Session
from onnxprune.section_choice import prior_of
from onnxprune.sequential import refit_in_order
from onnxprune.study import Study
from onnxprune.variant_distances import variant_distances

TRIAL_PASSES = 3
"""Times the calibration set all trials of a sensitivity may be refitted on, about."""

MIN_TRIAL_SAMPLES, MAX_TRIAL_SAMPLES = 32, 256
"""Samples to fit on: fewer say too little, more say little more."""

JUDGED = 4
"""Most samples to judge by for each one to fit on: they only run through the network."""

TRIALS_AT_ONCE = 6
"""Variants that advance together; each holds activations of its own."""

WIDEST = 1500
"""Features above which a consumer is not refitted in a trial: its Gram would be all the work."""

BROKEN = 1e3
"""Divergence of outputs that are no numbers, as where half precision overflows: worse than any."""
IN_ORDER = FixedRidge(1e-1)
"""How consumers are refitted in order on few samples: rather near their one-shot weights."""


@dataclass(frozen=True)
class Tried:
    """A trial pruning.

    Attributes:
        weights: recovered weights, inputs sliced.
        prior: the one-shot recovery they come from.
        distances: of all numeric outputs from the original's.
    """

    weights: Weights
    prior: Prior
    distances: list[OutputDistance]

    @property
    def divergence(self) -> float:
        """Mean over the outputs, of softened scores (see ``comparison``), and finite."""
        found = float(np.mean([distance.softened for distance in self.distances]))
        return found if np.isfinite(found) else BROKEN

    @property
    def relative_error(self) -> float:
        """That of the output that suffers most, and finite."""
        errors = [distance.relative_error for distance in self.distances]
        return float(max(np.nan_to_num(errors, nan=BROKEN, posinf=BROKEN)))


class Trials:
    """Tries prunings of one network.

    Args:
        study: the network and its rankings.
        fit: samples to refit on in order.
        tune: samples to judge by.
        options: settings.
        executor: where batches run.
    """

    def __init__(
        self, study: Study, fit: Batches, tune: Batches, options: Options, executor: Executor
    ) -> None:
        self.study = study
        self._in_order = options.composition.sequential
        self._fit, self._tune = fit, tune
        self._options, self._executor = options, executor

    @classmethod
    def within_budget(
        cls,
        study: Study,
        fit: Batches,
        tune: Batches,
        options: Options,
        executor: Executor,
        *,
        trials: int,
    ) -> Trials:
        """Trials on as many samples as their budget allows.

        Only samples to tune on judge them: the statistics that trials start from have seen the
        others, and make wide layers look cheap there.

        Args:
            study: the network and its rankings.
            fit: all samples to fit on.
            tune: all samples to tune on.
            options: settings.
            executor: where batches run.
            trials: how many there will be.
        """
        affordable = TRIAL_PASSES * (fit.indices.size + tune.indices.size) // max(trials, 1)
        count = min(max(affordable, MIN_TRIAL_SAMPLES), MAX_TRIAL_SAMPLES)
        refitted_on = _first(fit, count)
        judged_by = _first(tune, JUDGED * count)
        return cls(study, refitted_on, judged_by, options, executor)

    def tried(self, plans: Sequence[Mapping[str, int]], label: str = "trials") -> list[Tried]:
        """Tries plans, each a count for some of the groups and sections; the others stay whole.

        Raises:
            UnsupportedModelError: no output of the model is an array of numbers.
        """
        found: list[Tried] = []
        starts = range(0, len(plans), TRIALS_AT_ONCE)
        for start in shown(starts, label, progress=self._options.progress):
            some, recovery = plans[start : start + TRIALS_AT_ONCE], self.study.trial_recovery
            priors = [prior_of(self.study, plan, recovery) for plan in some]
            weights = [prior.weights for prior in priors]
            if self._in_order:
                refitted = refit_in_order(
                    self.study,
                    priors,
                    IN_ORDER,
                    self._fit,
                    None,
                    self._executor,
                    widest=WIDEST,
                    seed=self._options.seed,
                    provider=self._options.provider,
                    max_memory=self._options.frontier_memory,
                )
                weights = [made.weights for made in refitted]
            found += [
                Tried(made, prior, _numeric(distances))
                for made, prior, distances in zip(
                    weights, priors, self._distances(weights, priors), strict=True
                )
            ]
        return found

    def predict(self, feed: Feed, tried: Tried | None) -> list[Array]:
        """The outputs for a feed of the pruning that was tried, or of the original."""
        full = self.study.full_size
        values = dict(full.values)
        if tried is not None:
            values |= self._changes(tried.weights, tried.prior)
        outputs = [value.name for value in full.model.graph.output]
        return self._session.run({**feed, **values}, outputs)

    def _distances(
        self, weights: Sequence[Weights], priors: Sequence[Prior]
    ) -> list[list[OutputDistance]]:
        """How far prunings with these weights are from the original, output by output."""
        return variant_distances(
            self.study.full_size.model,
            [self._changes(*pair) for pair in zip(weights, priors, strict=True)],
            self._tune,
            self._executor,
            provider=self._options.provider,
            mask=self.study.mask,
        )

    def _changes(self, weights: Weights, prior: Prior) -> dict[str, Array]:
        """What the initializers of the full-size network hold in a pruned one."""
        widened = padded(self.study.views, weights, prior.alive)
        return self.study.full_size.replaced({**widened, **prior.emptied}, prior.masks)

    @cached_property
    def _session(self) -> Session:
        """The network with all weights as inputs, so that trials need no session of their own."""
        model = self.study.full_size.with_inputs()
        return Session(model, provider=self._options.provider, arena=False)


def _first(some: Batches, count: int) -> Batches:
    """The first samples, in whole batches where the model is fixed to a batch size."""
    extent = some.samples.batch_extent or 1
    return replace(some, indices=some.indices[: -(-count // extent) * extent])


def _numeric(distances: list[OutputDistance]) -> list[OutputDistance]:
    seen = [distance for distance in distances if distance.samples]
    if not seen:
        raise UnsupportedModelError(
            "no output of the model is an array of numbers, by which prunings could be judged"
        )
    return seen
