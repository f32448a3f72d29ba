"""What is learnt about a network before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import onnx

from onnxprune.arrays import Array, IndexArray
from onnxprune.batches import Batches
from onnxprune.blas_threads import threads_for
from onnxprune.calibration import Calibration, Split
from onnxprune.contractions import ContractionView, contraction_views
from onnxprune.criteria import Criterion
from onnxprune.executor import Executor
from onnxprune.full_size import FullSize
from onnxprune.gram import Gram
from onnxprune.layer_problem import GroupProblem, LayerProblem
from onnxprune.least_squares import LeastSquares
from onnxprune.linear_map import FeatureSpec
from onnxprune.network import ChannelGroup, Network
from onnxprune.options import Options
from onnxprune.problem_store import ProblemStore
from onnxprune.problems import (
    MAX_FEATURES,
    ConsumerView,
    consumer_views,
    group_problem,
    readers_of,
)
from onnxprune.progress import shown
from onnxprune.ranking import Ranking, keep_of
from onnxprune.recovery import FixedRidge, NoRecovery, Recovery
from onnxprune.row_mask import RowMask
from onnxprune.saved_moments import SavedMoments
from onnxprune.scope import Scope
from onnxprune.statistics import ROWS_PER_FEATURE, collect, sums_bytes
from onnxprune.study_memory import NO_MEMORY, StudyMemory

QUICK_RECOVERY = FixedRidge()
"""Recovery of trials: they are many and only compared with each other."""

FEW_ROWS = 5
"""Rows per feature below which the statistics deserve a warning."""

ROWS_TO_TUNE = 5
"""Rows per feature of the samples to tune on where layers are refitted in order: there, ridges are
chosen on what the pruned network really feeds a layer, and these only measure errors."""


@dataclass(frozen=True)
class Study(Scope):
    """A network with everything the decisions rest on.

    Attributes:
        canonical: the canonical model.
        views: the consumers that read the groups, and the last ones of the sections.
        contractions: the products of two activations that sum over them.
        layers: name of either -> its problems.
        rankings: group name -> order and prices of its channels.
        recovery: how consumers are refitted in the end.
        trial_recovery: how they are in trials.
        max_features: consumers that read more features are stacked (see ``problems``).
        mask: says which positions count; None for all.
    """

    canonical: onnx.ModelProto
    views: Mapping[str, ConsumerView]
    contractions: Mapping[str, ContractionView]
    layers: Mapping[str, Sequence[LayerProblem]]
    rankings: Mapping[str, Ranking]
    recovery: Recovery
    trial_recovery: Recovery
    max_features: int = MAX_FEATURES
    mask: RowMask | None = None

    @cached_property
    def full_size(self) -> FullSize:
        """The network whose weights can be replaced."""
        return FullSize.of(self.canonical)

    def keeps(self, counts: Mapping[str, int]) -> dict[str, IndexArray]:
        """Group name -> surviving units, for the groups these counts cut."""
        return {
            group.name: keep_of(self.rankings[group.name], counts[group.name])
            for group in self.groups
            if counts.get(group.name, group.size) < group.size
        }

    def survivors(self, keeps: Mapping[str, IndexArray]) -> Array:
        """Which network-wide channels survive these keeps (see ``Network``)."""
        return self.network.survivors(keeps)

    def thin_layers(self) -> list[str]:
        """Consumers whose statistics rest on too few rows."""
        return [
            layer.name
            for parts in self.layers.values()
            for layer in parts
            if layer.rows < FEW_ROWS * (layer.gram.shape[0] - 1)
        ]


def study(
    canonical: onnx.ModelProto,
    scope: Scope,
    samples: Calibration,
    split: Split,
    options: Options,
    executor: Executor,
    learnt: SavedMoments | None = None,
    memory: StudyMemory = NO_MEMORY,
    mask: RowMask | None = None,
) -> Study:
    """Collect the statistics of all consumers, if none were learnt, and rank all channels."""
    network, groups = scope.network, scope.groups
    last = {m.name for section in scope.sections for m in section.tail.maps}
    max_features = MAX_FEATURES if options.composition.patches else 0
    views = consumer_views(network, readers_of(groups) | last, max_features)
    recovery = options.make_recovery()
    recover = not isinstance(recovery, NoRecovery)
    contractions = contraction_views(canonical, network, groups, recover=recover)
    layers = observed(
        canonical,
        {**views, **contractions},
        samples,
        split,
        options,
        executor,
        learnt,
        memory,
        mask,
    )
    criterion, progress = options.make_criterion(), options.progress
    return Study(
        network,
        groups,
        scope.allowed,
        canonical,
        views,
        contractions,
        layers,
        memory.rankings(
            scope, options, lambda: rank(network, groups, layers, criterion, progress=progress)
        ),
        recovery,
        QUICK_RECOVERY if isinstance(recovery, LeastSquares) else recovery,
        max_features=max_features,
        sections=scope.sections,
        mask=mask,
    )


def observed(
    canonical: onnx.ModelProto,
    views: Mapping[str, ConsumerView | ContractionView],
    samples: Calibration,
    split: Split,
    options: Options,
    executor: Executor,
    learnt: SavedMoments | None = None,
    memory: StudyMemory = NO_MEMORY,
    mask: RowMask | None = None,
) -> ProblemStore:
    """The problems of these layers; under a limit of memory, collected some layers at a time.

    Half of what is allowed holds matrices that are finished, the other half the sums over both
    sets of samples and, in float32, rows that wait to be summed. Moments that were learnt serve to
    fit and to tune, and nothing is run.

    Raises:
        CalibrationError: those of a layer were not learnt.
    """
    limit = options.max_memory
    layers = ProblemStore(None if limit is None else limit // 2)
    if learnt is not None:
        for name, view in views.items():
            known = learnt.of(name, view.specs)
            layers.add(name, view.problems(known, known))
        return layers
    if mask is not None:
        mask.check_follows(spec for view in views.values() for spec in view.specs)
    for names in passes(canonical, views, None if limit is None else limit // 5):
        specs = [spec for name in names for spec in views[name].specs]
        make = partial(observe, canonical, specs, samples, split, options, executor, mask)
        grams = memory.moments(specs, make)
        for name in names:
            layers.add(name, views[name].problems(*grams))
    return layers


def passes(
    canonical: onnx.ModelProto,
    views: Mapping[str, ConsumerView | ContractionView],
    max_bytes: int | None,
) -> list[list[str]]:
    """Layers to collect together: consecutive ones whose sums fit the limit, at least one."""
    sizes = sums_bytes(canonical, (spec for view in views.values() for spec in view.specs))
    found: list[list[str]] = []
    seen: set[FeatureSpec] = set()
    held = 0
    for name, view in views.items():
        own = set(view.specs)
        more = sum(sizes[spec] for spec in own - seen)
        if not found or (max_bytes is not None and held + more > max_bytes):
            found.append([])
            seen, held, more = set(), 0, sum(sizes[spec] for spec in own)
        found[-1].append(name)
        seen, held = seen | own, held + more
    return found


def rows_per_feature(options: Options) -> tuple[int, int]:
    """How many rows of the samples to fit on, and of those to tune on, statistics take."""
    in_order = options.composition.sequential
    return ROWS_PER_FEATURE, ROWS_TO_TUNE if in_order else ROWS_PER_FEATURE


def observe(
    canonical: onnx.ModelProto,
    specs: Sequence[FeatureSpec],
    samples: Calibration,
    split: Split,
    options: Options,
    executor: Executor,
    mask: RowMask | None = None,
) -> tuple[dict[FeatureSpec, Gram], dict[FeatureSpec, Gram]]:
    """The Grams of these features: a pass over the samples to fit on, one over those to tune on."""
    sets = zip((split.fit, split.tune), rows_per_feature(options), strict=True)
    fit, tune = (
        collect(
            canonical,
            specs,
            Batches(samples, indices, options.batch),
            samples=indices.size,
            seed=options.seed + number,
            executor=executor,
            rows_per_feature=rows,
            provider=options.provider,
            mask=mask,
        )
        for number, (indices, rows) in enumerate(sets)
    )
    return fit, tune


def rank(
    network: Network,
    groups: Sequence[ChannelGroup],
    layers: Mapping[str, Sequence[LayerProblem]],
    criterion: Criterion,
    *,
    progress: bool = False,
) -> dict[str, Ranking]:
    """Group name -> the order in which a criterion keeps its channels, and what counts cost."""
    rankings = {}
    for group in shown(groups, "ranking channels", progress=progress):
        problem = group_problem(group, network, layers)
        with threads_for(max((len(layer.gram) for layer in problem.consumers), default=0)):
            ranking = criterion.rank(problem) if problem.consumers else _unread(problem)
        rankings[group.name] = ranking
    return rankings


def _unread(problem: GroupProblem) -> Ranking:
    """Channels nobody reads go first, at no cost, part by part in turn."""
    place = np.zeros(problem.channels.size)
    for part in np.unique(problem.parts):
        members = np.flatnonzero(problem.parts == part)
        place[members] = np.arange(members.size)
    order = np.argsort(place, kind="stable")
    return Ranking(order, np.zeros(problem.channels.size + 1))
