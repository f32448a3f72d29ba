"""Refitting consumers in order, each on what the pruned network really feeds it.

One-shot recovery solves every consumer on the original's activations. In the pruned network the
inputs are not those any more: errors of all layers before add up. Here the original network and
the pruned one (at full size, see ``full_size``) advance side by side; at each stage its consumers
are solved against the original's outputs, and the pruned network goes on with their new weights.
Consumers that lose no inputs but see changed ones are solved as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import Array
from onnxprune.executor import Executor
from onnxprune.extract import known_shapes
from onnxprune.full_size import FullSize
from onnxprune.plan import Weights
from onnxprune.problems import ConsumerView, consumer_views
from onnxprune.recovery import Recovery, Solution
from onnxprune.refit import Prior, as_it_is, padded
from onnxprune.regression import Moments, Regression
from onnxprune.runtime import Provider
from onnxprune.sampling import GramRequest, draw_uniforms, request_for
from onnxprune.side_by_side import Frontier, Key, SideBySide
from onnxprune.stages import Site, Stage, stages_of
from onnxprune.statistics import ROWS_PER_FEATURE
from onnxprune.study import Batches, Study
from onnxprune.tensor_store import TensorStore

FIT, TUNE = 0, 1


@dataclass(frozen=True)
class Refitted:
    """The result of a sequential refit.

    Attributes:
        weights: of all consumers that lose inputs or see changed ones.
        solutions: consumer -> how its parts were solved, where they were solved here.
        node_runs: how many nodes were executed, once for each batch and network.
        spilled: bytes of activations that were written to files.
    """

    weights: Weights
    solutions: dict[str, list[Solution]]
    node_runs: int
    spilled: int


def refit_in_order(
    study: Study,
    prior: Prior,
    recovery: Recovery,
    fit: Batches,
    tune: Batches,
    executor: Executor,
    *,
    seed: int = 0,
    provider: Provider = "cpu",
    max_memory: int | None = None,
) -> Refitted:
    """Solve the consumers of a pruned network in execution order.

    Args:
        study: the network.
        prior: what the refit starts from.
        recovery: how a consumer is solved.
        fit: samples to fit on.
        tune: samples to choose prior and ridge on.
        executor: where batches run.
        seed: of the drawn positions.
        provider: where the networks run.
        max_memory: bytes of activations to hold in memory; more go to files. None for no limit.
    """
    full = FullSize.of(study.canonical)
    weights = dict(prior.weights.arrays)
    changes = full.replaced(padded(study.views, prior.weights, prior.alive), prior.masks)
    stages = stages_of(full.model, study.network, changes)
    views = consumer_views(study.network, {site.name for s in stages for site in s.sites})
    solutions: dict[str, list[Solution]] = {}
    store: TensorStore[Key]
    with TensorStore(max_memory) as store:
        networks = SideBySide(
            full.model,
            [stage.cut for stage in stages],
            [stage.wanted for stage in stages],
            itertools.chain(fit, tune),
            store,
            executor,
            provider,
        )
        networks.change(changes)
        for number, stage in enumerate(stages):
            rows = _Rows.of(stage, study, views, prior, weights, (fit, tune), seed)
            label = f"refitting, stage {number + 1} of {len(stages)}"
            sums: Sums = {}
            sums = networks.advance(rows.of_batch, _add, sums, label=label)
            for name, moments in sums.items():
                view, problems = views[name], rows.regressions[name].problems(*moments)
                solved = [recovery.solve(p, np.arange(len(p.channels))) for p in problems]
                weight = view.weight_tensor([solution.weight for solution in solved])
                weights[name] = weight, view.bias_tensor([solution.bias for solution in solved])
                solutions[name] = solved
                new = padded(views, Weights({name: weights[name]}), prior.alive)
                changes |= full.replaced(new, before=changes)
            networks.change(changes)
        return Refitted(Weights(weights), solutions, networks.node_runs, store.bytes_spilled)


Sums = dict[str, list[Moments]]
"""Consumer -> its moments on the samples to fit on, and on those to tune on."""


@dataclass(frozen=True)
class _Rows:
    """How the consumers of one stage are seen.

    Attributes:
        stage: the stage.
        regressions: consumer -> its regression.
        requests: consumer -> which rows are taken, to fit on and to tune on.
        fit_batches: how many batches are there to fit on; those to tune on follow.
        seed: of the drawn positions.
    """

    stage: Stage
    regressions: Mapping[str, Regression]
    requests: Mapping[str, list[GramRequest]]
    fit_batches: int
    seed: int

    @classmethod
    def of(
        cls,
        stage: Stage,
        study: Study,
        views: Mapping[str, ConsumerView],
        prior: Prior,
        weights: Mapping[str, tuple[Array, Array]],
        sets: tuple[Batches, Batches],
        seed: int,
    ) -> _Rows:
        """What is seen at a stage, given the weights so far."""
        shapes = known_shapes(study.canonical, {site.x for site in stage.sites})
        regressions, requests = {}, {}
        for site in stage.sites:
            view = views[site.name]
            own = as_it_is(view.linear_map)
            start = weights.get(site.name, own)
            target = prior.targets.get(site.name, own)
            regressions[site.name] = Regression.of(view, prior.alive, target, start)
            requests[site.name] = [
                request_for(
                    view.specs[0],
                    shapes[site.x],
                    samples=batches.indices.size,
                    batch=batches.size,
                    rows_per_feature=ROWS_PER_FEATURE,
                )
                for batches in sets
            ]
        return cls(stage, regressions, requests, len(sets[FIT]), seed)

    def of_batch(self, batch: int, frontier: Frontier) -> dict[str, tuple[int, Moments]]:
        """Consumer -> which samples these are, and their moments."""
        which = FIT if batch < self.fit_batches else TUNE
        shard = batch - which * self.fit_batches
        found = {}
        for site in self.stage.sites:
            request = self.requests[site.name][which]
            found[site.name] = (
                which,
                self.regressions[site.name].moments(
                    request,
                    frontier.original(site.x),
                    frontier.changed(site.x),
                    self._missing(site, frontier),
                    draw_uniforms(self.seed + which, shard, request.points),
                ),
            )
        return found

    def _missing(self, site: Site, frontier: Frontier) -> Array | None:
        """What the pruned network lacks at the joins behind a consumer."""
        if not self.regressions[site.name].takes_missing:
            return None
        skips = [skip for skip in site.skips if frontier.differs(skip)]
        lacks = [frontier.original(skip) - frontier.changed(skip) for skip in skips]
        return sum(lacks[1:], lacks[0]) if lacks else None


def _add(total: Sums, partial: dict[str, tuple[int, Moments]]) -> Sums:
    for name, (which, moments) in partial.items():
        sums = total.setdefault(name, [])
        if which < len(sums):
            sums[which].add(moments)
        else:
            sums.append(moments)
    return total
