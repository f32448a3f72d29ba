"""The ways of finishing a plan that ``bench_refinements.py`` compares.

Each makes models of the same counts. Where a way is not an option of the package, a part of it is
exchanged here, for as long as the models are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from unittest import mock

import numpy as np
import onnx
from swaps import swapped
from trained import NETWORKS

from onnxprune import Options, Pruner, sequential
from onnxprune.arrays import Array, IndexArray
from onnxprune.batches import Batches
from onnxprune.bounds import bounds_of
from onnxprune.choice import allocate
from onnxprune.layer_problem import LayerProblem
from onnxprune.least_squares import LeastSquares
from onnxprune.network import ChannelGroup
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.problems import ConsumerView, group_problem
from onnxprune.ranking import keep_of
from onnxprune.recovery import Recovery, Solution
from onnxprune.refit import Prior, as_it_is, refit
from onnxprune.regression import Regression
from onnxprune.rewrite import apply, digest
from onnxprune.study import Study
from onnxprune.target import Target

Keeps = dict[str, IndexArray]
REPAIR_IMAGES = 256


@dataclass
class Bench:
    """A network and what calibration images say of it.

    Attributes:
        name: of the network.
        images: which images of the train split.
        seed: of the split and of the drawn positions.
    """

    name: str
    images: IndexArray
    seed: int = 0
    _refitted: dict[str, list[Weights]] = field(default_factory=dict, repr=False)

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The original."""
        return NETWORKS[self.name].model

    @cached_property
    def inputs(self) -> Array:
        """The calibration images as the network takes them."""
        network = NETWORKS[self.name]
        return network.inputs(network.images("train")[0][self.images])

    @cached_property
    def pruner(self) -> Pruner:
        """The package on these images; any number of channels may stay."""
        feed = {self.model.graph.input[0].name: self.inputs}
        return Pruner(self.model, feed, Options(align=1, latency=False, seed=self.seed))

    @property
    def study(self) -> Study:
        """Statistics and rankings."""
        return self.pruner._ground.study

    @property
    def batches(self) -> tuple[Batches, Batches]:
        """To fit on and to tune on."""
        return self.pruner._ground.batches

    def counts(self, fraction: float) -> dict[str, int]:
        """What the package keeps of every group for a fraction of the MACs."""
        known = self.study
        target = [Target("macs", fraction)]
        bounds = bounds_of(target, self.pruner._ground.cost, known.sizes, known.places, 1)
        return allocate(known, bounds, "sensitivity", self.pruner._ground.chooser.laws)

    def prior(self, keeps: Keeps, recovery: Recovery | None = None) -> Prior:
        """One-shot recovery."""
        known = self.study
        recovery = recovery or known.recovery
        alive = known.survivors(keeps)
        return refit(known.views, known.layers, alive, recovery, known.contractions)

    def in_order(
        self, priors: Sequence[Prior], recovery: Recovery | None = None, seed: int = 0
    ) -> list[Weights]:
        """Sequential refits."""
        known, executor = self.study, self.pruner._ground.executor
        recovery = recovery or known.recovery
        made = sequential.refit_in_order(
            known, priors, recovery, *self.batches, executor, seed=seed
        )
        return [refitted.weights for refitted in made]

    def refitted(self, keeps: Sequence[Keeps]) -> list[Weights]:
        """What the package makes of these keeps, made once."""
        key = repr([{name: keep.tolist() for name, keep in k.items()} for k in keeps])
        if key not in self._refitted:
            self._refitted[key] = self.in_order([self.prior(k) for k in keeps])
        return self._refitted[key]

    def finished(self, keeps: Sequence[Keeps], weights: Sequence[Weights]) -> list[onnx.ModelProto]:
        """The smaller models."""
        pairs = zip(keeps, weights, strict=True)
        return [apply(self.model, self.plan(k), w) for k, w in pairs]

    def plan(self, keeps: Keeps) -> Plan:
        """The plan of these keeps."""
        sizes = {group.name: group.size for group in self.study.groups}
        edits = (Keep(name, tuple(keep.tolist()), sizes[name]) for name, keep in keeps.items())
        return Plan(digest(self.model), tuple(edits))


Variant = Callable[[Bench, Sequence[Keeps]], list[onnx.ModelProto]]
"""Models by the units that stay."""


def base(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """What the package does."""
    return bench.finished(keeps, bench.refitted(keeps))


def one_shot(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """Every consumer on the original's activations."""
    return bench.finished(keeps, [bench.prior(k).weights for k in keeps])


def without_skips(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """Nothing is taken over from the other branch of a join."""
    priors = [bench.prior(k) for k in keeps]
    with mock.patch.object(Regression, "takes_missing", new=False):
        return bench.finished(keeps, bench.in_order(priors))


def other_positions(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """The same refit at other random positions: what chance does."""
    return bench.finished(keeps, bench.in_order([bench.prior(k) for k in keeps], seed=1))


def rows_per_feature(rows: int) -> Variant:
    """More or fewer positions in the sequential refit."""

    def variant(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
        priors = [bench.prior(k) for k in keeps]
        with mock.patch.object(sequential, "ROWS_PER_FEATURE", rows):
            return bench.finished(keeps, bench.in_order(priors))

    return variant


class NotPooled(LeastSquares):
    """Tune rows choose, and are not fitted on afterwards."""

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """See ``LeastSquares``."""
        return super().solve(replace(problem, tune_rows=0), keep)


def not_pooled(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """Fit rows alone, in both recoveries."""
    recovery = NotPooled()
    priors = [bench.prior(k, recovery) for k in keeps]
    return bench.finished(keeps, bench.in_order(priors, recovery))


def second_sweep(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """The weights of the first refit are what the second one starts from, and is pulled to."""
    priors = [bench.prior(k) for k in keeps]
    first = zip(priors, bench.refitted(keeps), strict=True)
    return bench.finished(keeps, bench.in_order([replace(p, weights=w) for p, w in first]))


def repaired(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """Means and variances of every convolution set to the original's at last."""
    from repair import repaired as repair

    original, images = bench.model, bench.inputs[:REPAIR_IMAGES]
    pairs = zip(keeps, base(bench, keeps), strict=True)
    return [repair(original, made, bench.plan(k), images) for k, made in pairs]


def swaps(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """Keeps improved by exchanging units before the refit."""
    known = bench.study
    problems = {g.name: group_problem(g, known.network, known.layers) for g in known.groups}
    better = [{name: swapped(problems[name], keep) for name, keep in k.items()} for k in keeps]
    return base(bench, better)


def own_gram(bench: Bench, keeps: Sequence[Keeps]) -> list[onnx.ModelProto]:
    """Groups with one consumer are ranked anew in the refit, on what that consumer really reads.

    The regression of such a consumer is on all of the pruned network's channels; the criterion
    ranks these by it, and as many stay as before.
    """
    made = []
    for k in keeps:
        chooser = _Chosen(bench, k)
        with chooser.exchanged():
            weights = bench.in_order([chooser.prior], chooser)
        made += bench.finished([chooser.keeps], weights)
    return made


class _Chosen:
    """A recovery that chooses what to keep first, where it is given all channels of a group."""

    def __init__(self, bench: Bench, keeps: Keeps) -> None:
        self._known, self.keeps = bench.study, dict(keeps)
        self.prior = bench.prior(keeps)
        self._criterion = bench.pruner._ground.options.make_criterion()
        self._groups: dict[str, ChannelGroup] = {
            group.consumers[0]: group
            for group in self._known.groups
            if len(group.consumers) == 1 and not group.contractions and group.name in keeps
        }

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """See ``Recovery``; ``prior.alive`` changes with what is chosen."""
        alive, group = self.prior.alive, self._groups.get(problem.name)
        if group is None:
            return self._known.recovery.solve(problem, keep)
        units = group_problem(group, self._known.network, {problem.name: [problem]})
        chosen = keep_of(self._criterion.rank(units), int(alive[group.channels].sum()))
        alive[group.channels] = False
        alive[group.channels[chosen]] = True
        self.keeps[group.name] = chosen
        return self._known.recovery.solve(problem, np.flatnonzero(alive[problem.channels]))

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """Consumers of these groups are regressed on all channels."""
        plan, groups = sequential._Plan, self._groups
        usual = plan.regression

        def regression(plan: sequential._Plan, view: ConsumerView) -> Regression:
            if view.name not in groups:
                return usual(plan, view)
            own = as_it_is(view.linear_map)
            return Regression.of(view, np.ones_like(plan.prior.alive), own, own)

        with mock.patch.object(plan, "regression", regression):
            yield


VARIANTS: dict[str, Variant] = {
    "base": base,
    "one-shot recovery only": one_shot,
    "no skip term": without_skips,
    "tune rows not pooled": not_pooled,
    "20 rows per feature": rows_per_feature(20),
    "keeps chosen in order": own_gram,
    "moments repaired": repaired,
    "second sweep": second_sweep,
    "swaps": swaps,
    "300 rows per feature": rows_per_feature(300),
    "other positions": other_positions,
    "500 images": base,
    "2000 images": base,
}
"""Name -> how models are made; those of other images are made by ``base`` with another bench."""
