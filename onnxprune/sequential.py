"""Refitting consumers in order, each on what the pruned network really feeds it.

One-shot recovery solves every consumer on the original's activations. In the pruned network the
inputs are not those any more: errors of all layers before add up. Here the original network and
pruned ones (at full size, see ``full_size``) advance side by side; at each stage its consumers are
solved against the original's outputs, and the pruned networks go on with their new weights.
Consumers that lose no inputs but see changed ones are solved as well. Several plans at once are
trials, each of which costs what lies behind its first cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxprune.arrays import Array
from onnxprune.batches import Batches
from onnxprune.executor import Executor
from onnxprune.extract import known_shapes
from onnxprune.full_size import FullSize
from onnxprune.plan import Weights
from onnxprune.problems import ConsumerView, consumer_views
from onnxprune.recovery import Recovery, Solution
from onnxprune.refit import Prior, as_it_is, padded
from onnxprune.regression import Regression
from onnxprune.row_mask import RowMask
from onnxprune.runtime import Provider
from onnxprune.sampling import request_for
from onnxprune.sections import Section
from onnxprune.side_by_side import Key, SideBySide
from onnxprune.stage_rows import FIT, StageRows
from onnxprune.stage_solutions import solve_stage
from onnxprune.stages import Stage, downstream, stages_of
from onnxprune.study import Study
from onnxprune.tensor_store import TensorStore

ROWS_PER_FEATURE = 100
"""Rows wanted for each kept feature: only half as many features or fewer are left by now."""


@dataclass(frozen=True)
class Refitted:
    """One plan after its sequential refit.

    Attributes:
        weights: of all consumers that lose inputs or see changed ones.
        solutions: consumer -> how its parts were solved, where they were solved here.
    """

    weights: Weights
    solutions: dict[str, list[Solution]]


def solved_in_order(study: Study, alive: Array, sections: Sequence[Section] = ()) -> frozenset[str]:
    """The consumers that ``refit_in_order`` solves, whatever it starts from.

    Those that read infinities are among them, although they then stay as they are.

    Args:
        study: the network.
        alive: which network-wide channels survive, shape (channels,), bool.
        sections: those that are dropped.
    """
    full = study.full_size
    ends = {m.name for section in sections for m in section.tail.maps}
    gone = {node for section in sections for node in section.branch}
    cut = {name for name, view in study.views.items() if view.is_cut(alive)} - gone
    products = {
        name: view
        for name, view in study.contractions.items()
        if view.is_cut(alive) and name not in gone
    }
    folds = {view.fold.linear_map.name for view in products.values() if view.fold is not None}
    changed = full.places(ends | cut | folds, products)
    stages = stages_of(full.model, study.network, changed)
    return frozenset(site.name for stage in stages for site in stage.sites) - gone


def refit_in_order(
    study: Study,
    priors: Sequence[Prior],
    recovery: Recovery,
    fit: Batches,
    tune: Batches | None,
    executor: Executor,
    *,
    widest: int | None = None,
    seed: int = 0,
    provider: Provider = "cpu",
    max_memory: int | None = None,
) -> list[Refitted]:
    """Solve the consumers of pruned networks in execution order.

    Args:
        study: the network.
        priors: for every plan what its refit starts from.
        recovery: how a consumer is solved.
        fit: samples to fit on.
        tune: samples that the recovery chooses something on; None where it does not.
        executor: where batches run.
        widest: consumers that keep more features than this stay as they are; None for all.
        seed: of the drawn positions.
        provider: where the networks run.
        max_memory: bytes of activations to hold in memory; more go to files. None for no limit.

    Returns:
        For every plan its refit.
    """
    full = study.full_size
    plans = [_Plan.of(study, full, prior) for prior in priors]
    changed = {name for plan in plans for name in plan.changes}
    stages = stages_of(full.model, study.network, changed)
    sites = [site for stage in stages for site in stage.sites]
    views = consumer_views(study.network, {site.name for site in sites}, study.max_features)
    shapes = known_shapes(study.canonical, {site.x for site in sites})
    mask = study.mask
    held = set() if mask is None else {mask.name}
    sets = (fit,) if tune is None else (fit, tune)
    store: TensorStore[Key]
    with TensorStore(max_memory) as store:
        networks = SideBySide(
            full.model,
            [stage.cut for stage in stages],
            [stage.wanted | held for stage in stages],
            itertools.chain(*sets),
            [plan.changes for plan in plans],
            store,
            executor,
            provider,
        )
        for number, stage in enumerate(stages):
            rows = _rows(stage, shapes, views, plans, sets, seed, widest, mask)
            label = f"refitting, stage {number + 1} of {len(stages)}"
            for (variant, name), solutions in solve_stage(networks, rows, recovery, label).items():
                networks.change(variant, plans[variant].take(views[name], solutions, full))
    return [Refitted(Weights(plan.weights), plan.solutions) for plan in plans]


@dataclass
class _Plan:
    """Accumulator: what has become of one plan.

    Attributes:
        prior: what its refit starts from.
        weights: of its consumers, as far as they are solved.
        changes: what initializers of the full-size network hold instead of their own.
        moved: the tensors that depend on the cuts.
        solutions: consumer -> how its parts were solved.
    """

    prior: Prior
    weights: dict[str, tuple[Array, Array]]
    changes: dict[str, Array]
    moved: set[str]
    solutions: dict[str, list[Solution]] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study, full: FullSize, prior: Prior) -> _Plan:
        """A plan before its refit."""
        widened = padded(study.views, prior.weights, prior.alive)
        changes = full.replaced({**widened, **prior.emptied}, prior.masks)
        moved = downstream(full.model, changes)
        return cls(prior, dict(prior.weights.arrays), changes, moved)

    def take(self, view: ConsumerView, solved: list[Solution], full: FullSize) -> dict[str, Array]:
        """Takes over the solution of a consumer; returns what initializers hold now."""
        weight = view.weight_tensor([solution.weight for solution in solved])
        bias = view.bias_tensor([solution.bias for solution in solved])
        self.weights[view.name] = weight, bias
        self.solutions[view.name] = solved
        new = padded({view.name: view}, Weights({view.name: (weight, bias)}), self.prior.alive)
        values = full.replaced(new, before=self.changes)
        self.changes |= values
        return values

    def regression(self, view: ConsumerView) -> Regression:
        """What a consumer is regressed on."""
        own = as_it_is(view.linear_map)
        start = self.weights.get(view.name, own)
        mixed = self.prior.targets.get(view.name)
        return Regression.of(view, self.prior.alive, mixed or own, start, makes_own=mixed is None)


def _rows(
    stage: Stage,
    shapes: Mapping[str, tuple[int | None, ...]],
    views: Mapping[str, ConsumerView],
    plans: Sequence[_Plan],
    sets: Sequence[Batches],
    seed: int,
    widest: int | None,
    mask: RowMask | None,
) -> StageRows:
    """How the consumers of a stage are seen."""
    requests = {
        site.name: [
            request_for(
                views[site.name].specs[0],
                shapes.get(site.x),
                samples=batches.indices.size,
                batch=batches.size,
                rows_per_feature=ROWS_PER_FEATURE,
                layout=None if mask is None else mask.layout(views[site.name].specs[0]),
            )
            for batches in sets
        ]
        for site in stage.sites
    }
    regressions = {}
    for variant, plan in enumerate(plans):
        for site in stage.sites:
            moved = not plan.moved.isdisjoint((site.x, *site.skips))
            if moved and site.name not in plan.prior.gone:
                regression = plan.regression(views[site.name])
                if widest is None or regression.features <= widest:
                    regressions[variant, site.name] = regression
    name = None if mask is None else mask.name
    return StageRows(stage.sites, regressions, requests, len(sets[FIT]), seed, name)
