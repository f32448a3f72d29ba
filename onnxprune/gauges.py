"""What trial prunings say of targets on damage, as the search asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from onnxprune.arrays import Array, Feed
from onnxprune.metric import Metric, Predict
from onnxprune.refit import padded, refit
from onnxprune.sensitivity import try_counts
from onnxprune.study import Study
from onnxprune.target import Target
from onnxprune.trials import TrialNetwork

Trial = Callable[[Mapping[str, int]], float]
"""Group name -> kept count, to the damage that a quick trial of these counts does."""


@dataclass(frozen=True)
class Gauge:
    """A target on damage, read off trials.

    Attributes:
        target: the target.
        limit: what trials may show; the target's own value until finished models have shown that
            trials say too much or too little.
        read: what a trial shows.
    """

    target: Target
    limit: float
    read: Trial

    def holds(self, counts: Mapping[str, int]) -> bool:
        """Whether a trial of these counts stays within the limit."""
        return self.read(counts) <= self.limit


def gauges_of(
    targets: Sequence[Target],
    study: Study,
    network: Callable[[], TrialNetwork],
    metric: Metric | None,
) -> list[Gauge]:
    """A gauge for every target on damage; a trial that was made once is remembered.

    Args:
        targets: targets on damage.
        study: the network and its rankings.
        network: the network for trials.
        metric: what drops; needed for a target on the drop only.
    """
    found = []
    for target in targets:
        if target.kind == "error":
            read: Trial = partial(_tried_error, study, network)
        elif metric is not None:
            read = _drop(study, network, metric)
        else:
            raise ValueError("a target on the drop needs a metric: a function or labels")
        found.append(Gauge(target, target.value, _remembering(read)))
    return found


def _tried_error(
    study: Study, network: Callable[[], TrialNetwork], counts: Mapping[str, int]
) -> float:
    return max(distance.relative_error for distance in try_counts(study, network(), counts))


def _drop(study: Study, network: Callable[[], TrialNetwork], metric: Metric) -> Trial:
    before: list[float] = []

    def read(counts: Mapping[str, int]) -> float:
        if not before:
            before.append(metric.tried(_predictor(study, network(), {})))
        return before[0] - metric.tried(_predictor(study, network(), counts))

    return read


def _predictor(study: Study, network: TrialNetwork, counts: Mapping[str, int]) -> Predict:
    """Runs the network as if the groups kept these counts, consumers recovered quickly."""
    alive = study.survivors(study.keeps(counts))
    tried = refit(study.views, study.layers, alive, study.trial_recovery, study.contractions)
    replaced = padded(study.views, tried.weights, alive)

    def predict(feed: Feed) -> list[Array]:
        return network.predict(feed, replaced, tried.masks)

    return predict


def _remembering(read: Trial) -> Trial:
    known: dict[tuple[tuple[str, int], ...], float] = {}

    def remembered(counts: Mapping[str, int]) -> float:
        key = tuple(sorted(counts.items()))
        if key not in known:
            known[key] = read(counts)
        return known[key]

    return remembered
