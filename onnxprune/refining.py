"""The stage after pruning: weights are trained with the original as the teacher, if asked for.

Nothing of it is imported, and torch least of all, unless it is.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.arrays import IndexArray
from onnxprune.batches import Batches
from onnxprune.block_outputs import block_outputs
from onnxprune.calibration import Calibration, Split
from onnxprune.executor import Executor
from onnxprune.network import Network
from onnxprune.options import Options
from onnxprune.plan import Plan, Weights
from onnxprune.refinement import Refine, Refinement, require_torch
from onnxprune.rewrite import apply
from onnxprune.validation import compare

logger = logging.getLogger(__name__)


def require_refinable(canonical: onnx.ModelProto, options: Options) -> None:
    """Refuse what could only fail after the pruning; nothing to refuse where none is asked for.

    Raises:
        MissingLibraryError: torch is missing.
        UnsupportedModelError: an operator has no gradient; it is named.
        TrainingError: an augmentation is not known, or its file cannot be used.
        OnnxPruneError: there is no CUDA device for such a provider.
    """
    if options.refine is None:
        return
    require_torch()
    from onnxprune.train.distillation import check_refinable

    check_refinable(canonical, options.refine, options.provider)


@dataclass(frozen=True)
class Refiner:
    """Refines pruned models of one original.

    Attributes:
        original: the model as it was read.
        canonical: its canonical form.
        network: the channels of that.
        samples: all samples.
        split: what they are for.
        options: settings; a refinement is asked for.
        executor: where batches run.
    """

    original: onnx.ModelProto
    canonical: onnx.ModelProto
    network: Network
    samples: Calibration
    split: Split
    options: Options
    executor: Executor

    def refine(
        self, pruned: onnx.ModelProto, plan: Plan, weights: Weights, settings: Refine
    ) -> tuple[onnx.ModelProto, Weights, Refinement]:
        """Train a pruned model's weights.

        What training has found is judged as the file will run, and left aside if it is worse.

        Args:
            pruned: the model that plan and weights make.
            plan: what was cut.
            weights: recovered weights.
            settings: how long, and how.

        Returns:
            The model, the weights that make it with the plan, and what was done.
        """
        from onnxprune.train.course import Lessons
        from onnxprune.train.distillation import refine

        options, limit = self.options, self.options.frontier_memory
        made = {name for node in pruned.graph.node for name in node.output}
        blocks = (
            list(block_outputs(self.network, self.canonical, plan, made)) if settings.blocks else []
        )
        lessons = Lessons(
            self.canonical if blocks else self.original,
            self.samples,
            self._fitted(),
            self.split.choose,
            options.batch,
            blocks,
            options.provider,
            limit,
            options.seed,
            options.progress,
        )
        values, done = refine(pruned, lessons, settings)
        before = after = self._divergence(pruned)
        if values:
            refined = replace(weights, refined=values)
            model = apply(self.original, plan, refined)
            after = min(before, self._divergence(model))
        done = replace(done, before=before, after=after)
        logger.info("%s", done)
        return (model, refined, done) if done.improved else (pruned, weights, done)

    def _fitted(self) -> IndexArray:
        """The samples to train on: those that recovery has seen."""
        seen = np.union1d(self.split.fit, self.split.tune)
        others = np.setdiff1d(seen, self.split.choose)
        return others if others.size else seen

    def _divergence(self, model: onnx.ModelProto) -> float:
        """Of the outputs on the samples to choose by, softened; the sum over outputs."""
        batches = Batches(self.samples, self.split.choose, self.options.batch)
        found = compare(self.original, model, batches, self.executor, self.options.provider)
        summed = math.fsum(output.softened for output in found)
        return summed if math.isfinite(summed) else math.inf
