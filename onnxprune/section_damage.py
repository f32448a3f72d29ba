"""What dropping a residual section does to the outputs, once the layers behind it are refitted.

Most of what a branch did can be taken over by the next layers: the last one of the next branch,
which knows what its skip lacks, before all. Without that a section would seem several times as
dear as it is. Refitting all that follows for every section would take long; the first few stages
do most of it, on some of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxprune.executor import Executor
from onnxprune.plan import Weights
from onnxprune.progress import shown
from onnxprune.refit import padded, refit
from onnxprune.runtime import Provider
from onnxprune.section_choice import replacements
from onnxprune.sections import Section
from onnxprune.sequential import refit_in_order
from onnxprune.study import Batches, Study
from onnxprune.trials import TrialNetwork

STAGES = 4
"""Stages behind a section that are refitted in its trial: two residual blocks."""

FIT_SAMPLES, TUNE_SAMPLES = 256, 32
"""Samples that a trial's refit takes; they are only compared with each other."""


@dataclass(frozen=True)
class QuickRefit:
    """Refits the first stages behind a section.

    Attributes:
        fit: samples to fit on.
        tune: samples to tune on.
        executor: where batches run.
        seed: of the drawn positions.
        provider: where the networks run.
    """

    fit: Batches
    tune: Batches
    executor: Executor
    seed: int = 0
    provider: Provider = "cpu"

    def weights(self, study: Study, section: Section) -> Weights:
        """What the consumers behind a section become when it is dropped."""
        return refit_in_order(
            study,
            refit({}, {}, study.survivors({}), study.trial_recovery),
            study.trial_recovery,
            _some(self.fit, FIT_SAMPLES),
            _some(self.tune, TUNE_SAMPLES),
            self.executor,
            seed=self.seed,
            provider=self.provider,
            sections=[section],
            at_most=STAGES,
        ).weights


def measure_sections(
    study: Study,
    network: TrialNetwork,
    behind: QuickRefit | None = None,
    *,
    progress: bool = False,
) -> dict[str, float]:
    """Name of every section -> divergence of the outputs when it alone is dropped.

    Args:
        study: the network.
        network: where trials run.
        behind: refits what follows; None if nothing will be in the end.
        progress: whether to show a bar.
    """
    damage = {}
    alive = study.survivors({})
    for section in shown(study.sections, "measuring sections", progress=progress):
        weights = Weights({}) if behind is None else behind.weights(study, section)
        replaced = padded(study.views, weights, alive) | replacements(study, [section])
        distances = network.distances(replaced)
        damage[section.name] = float(np.mean([d.divergence for d in distances]))
    return damage


def _some(batches: Batches, count: int) -> Batches:
    """The first of the samples, in whole batches where the model is fixed to a size."""
    extent = batches.samples.batch_extent or 1
    return replace(batches, indices=batches.indices[: -(-count // extent) * extent])
