"""What trial prunings say of targets on damage, as the search asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from onnxprune.metric import Metric
from onnxprune.target import Target
from onnxprune.trials import Trials

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
    trials: Callable[[], Trials],
    metric: Metric | None,
) -> list[Gauge]:
    """A gauge for every target on damage; a trial that was made once is remembered.

    Args:
        targets: targets on damage.
        trials: what tries prunings, made when it is needed.
        metric: what drops; needed for a target on the drop only.
    """
    found = []
    for target in targets:
        if target.kind == "error":
            read: Trial = partial(_tried_error, trials)
        elif metric is not None:
            read = _drop(trials, metric)
        else:
            raise ValueError("a target on the drop needs a metric: a function or labels")
        found.append(Gauge(target, target.value, _remembering(read)))
    return found


def _tried_error(trials: Callable[[], Trials], counts: Mapping[str, int]) -> float:
    (tried,) = trials().tried([counts])
    return tried.relative_error


def _drop(trials: Callable[[], Trials], metric: Metric) -> Trial:
    before: list[float] = []

    def read(counts: Mapping[str, int]) -> float:
        if not before:
            before.append(metric.tried(lambda feed: trials().predict(feed, None)))
        (tried,) = trials().tried([counts])
        return before[0] - metric.tried(lambda feed: trials().predict(feed, tried))

    return read


def _remembering(read: Trial) -> Trial:
    known: dict[tuple[tuple[str, int], ...], float] = {}

    def remembered(counts: Mapping[str, int]) -> float:
        key = tuple(sorted(counts.items()))
        if key not in known:
            known[key] = read(counts)
        return known[key]

    return remembered
