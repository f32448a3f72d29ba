"""What every pruning of one model with one set of samples rests on, each part made when needed."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

import onnx

from onnxprune import fingerprints
from onnxprune.allocation import Costs
from onnxprune.batches import Batches
from onnxprune.blame import blamed
from onnxprune.calibration import CalibrationSource, mirrored, split
from onnxprune.canonical import canonicalise
from onnxprune.choice import Chooser
from onnxprune.cost import cost_model
from onnxprune.executor import Executor, InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import learnt_statistics, mask_of, open_samples
from onnxprune.latency_cost import latency_cost
from onnxprune.measurement import Judge, judge_of
from onnxprune.model import load
from onnxprune.options import Options
from onnxprune.provenance import file_sha256
from onnxprune.refining import require_refinable
from onnxprune.sample_doubts import doubts
from onnxprune.scope import Scope, prunable_groups
from onnxprune.section_choice import droppable_sections
from onnxprune.soundness import require_sound
from onnxprune.statistics_cache import open_cache
from onnxprune.study import Study, rows_per_feature, study
from onnxprune.study_memory import StudyMemory

logger = logging.getLogger(__name__)


class Groundwork:
    """A model and its samples, with what is learnt about them.

    Args:
        model: the trained model, or its path; it is left as it is.
        calibration: unlabelled samples; None for those that lie beside learnt statistics.
        options: settings.

    Attributes:
        options: settings.
        original: the model as it was read.
        name: of its file, or of its graph.
        file_sha256: digest of its file; None for none.
        canonical: its canonical form.
        samples: all samples, as they were given.
        with_copies: those, and behind them their mirror images where these are fitted on as well.
        mask: says which positions of them count; None for all.
        doubts: what is odd about them, with advice.
        parts: what they are for.
        executor: where batches run.
        sample: a batch of one sample (or of the batch size the model is fixed to).
        cost: costs of the canonical model, for one sample.
        scope: what of the model may be cut.

    Raises:
        UnsupportedModelError: the model cannot be read or has nothing to prune.
        CalibrationError: the samples, or the learnt statistics, do not fit the model.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        calibration: CalibrationSource | None,
        options: Options,
    ) -> None:
        self.options = options
        if isinstance(model, onnx.ModelProto):
            require_sound(model)
            self.original, self.name = model, model.graph.name
        else:
            self.original, self.name = load(model), Path(model).name
        self.file_sha256 = file_sha256(model)
        self._learnt = learnt_statistics(self.original, options)
        with blamed(self.original):
            self._prepare(calibration)

    def _prepare(self, calibration: CalibrationSource | None) -> None:
        options = self.options
        self.canonical = canonicalise(self.original)
        network = find_groups(self.canonical)
        groups = prunable_groups(network, options)
        require_refinable(self.canonical, options)
        samples = open_samples(self.original, calibration, options, self._learnt)
        logger.info("%s", samples.summary())
        self.samples = samples
        self.mask = mask_of(self.canonical, samples, options.mask)
        self.doubts = doubts(self.original, samples, options.mask, options.provider)
        for doubt in self.doubts:
            logger.warning("warning: %s", doubt)
        extent = samples.batch_extent or 1
        self.parts = split(len(samples), options.seed, batch_extent=extent)
        if options.refine is not None:
            self.parts = self.parts.with_choice(options.seed, batch_extent=extent)
        self.with_copies = samples
        if options.mirror:
            self.parts = self.parts.with_copies(len(samples))
            self.with_copies = mirrored(samples)
        self.executor: Executor = InProcess(options.progress)
        self.sample = next(iter(Batches(samples, self.parts.held_out, 1)))
        shapes = {name: array.shape for name, array in self.sample.items()}
        sections = droppable_sections(network, self.canonical, options)
        self.cost = cost_model(network, self.canonical, shapes, sections).per_sample(extent)
        self.scope = Scope.of(network, groups, options.composition.align, sections)

    @property
    def batches(self) -> tuple[Batches, Batches]:
        """The samples to fit on, and those to tune on."""
        samples, size = self.with_copies, self.options.batch
        fit, tune = (Batches(samples, i, size) for i in (self.parts.fit, self.parts.tune))
        return fit, tune

    @cached_property
    def memory(self) -> StudyMemory:
        """What finds statistics of the same model and samples again, if there is a cache."""
        options, parts = self.options, self.parts
        cache = open_cache(options.cache, options.cache_size)
        if cache is None or self._learnt is not None:  # those that were learnt are a file already
            return StudyMemory()
        used = {"fit": parts.fit.tolist(), "tune": parts.tune.tolist()}
        base = {
            "model": fingerprints.of_model(self.original),
            "samples": fingerprints.of_samples(self.samples),
            "parts": fingerprints.of_values(used),
            "mask": options.mask,
            "rows": rows_per_feature(options),
            "seed": options.seed,
            "batch": options.batch,
            "provider": options.provider,
            "environment": fingerprints.environment(),
        }
        about = {"graph": self.original.graph.name, "samples": len(self.samples)}
        return StudyMemory(cache, base, about)

    @cached_property
    def study(self) -> Study:
        """What is learnt from the samples: asked for once a target is certain to be reachable."""
        return study(
            self.canonical,
            self.scope,
            self.with_copies,
            self.parts,
            self.options,
            self.executor,
            self._learnt,
            self.memory,
            self.mask,
        )

    @cached_property
    def chooser(self) -> Chooser:
        """What chooses counts."""
        return Chooser(self.study, *self.batches, self.options, self.executor, self.memory)

    @cached_property
    def judge(self) -> Judge:
        """What measures pruned models."""
        macs = round(float(self.cost.macs(self.scope.sizes)))
        return judge_of(
            self.original, macs, self.samples, self.parts, self.options, self.executor, self.mask
        )

    def predicted_latency(self) -> Costs:
        """What predicts the milliseconds of a run from the counts."""
        return latency_cost(
            self.scope.network,
            self.canonical,
            self.judge.timed,
            sections=self.scope.sections,
            provider=self.options.provider,
            threads=self.options.threads,
            progress=self.options.progress,
        )
