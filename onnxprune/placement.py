"""On which execution provider the nodes of a model truly run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxprune.arrays import Feed
from onnxprune.model_source import ModelSource
from onnxprune.profile_events import KernelEvent, recording
from onnxprune.runtime import Assigned, Provider, execution_provider

RUNS = 4
"""The first is left out of the times: it makes what later ones reuse."""


@dataclass(frozen=True)
class Placement:
    """Where a model's nodes run, of a session that was asked to run on one provider.

    Attributes:
        nodes: execution provider -> how many nodes of the graph it was given.
        time: execution provider -> its share of the time of all kernels. On a GPU, that of the
            processor which launches them.
        fell_back: names of the nodes that another provider was given than the one asked for.
    """

    nodes: Mapping[str, int]
    time: Mapping[str, float]
    fell_back: Sequence[str]


def placement(
    model: ModelSource, feed: Feed, *, provider: Provider = "cpu", threads: int | None = 1
) -> Placement:
    """Runs a model with a record of its kernels.

    Args:
        model: the model.
        feed: the input of every run.
        provider: where it is asked to run.
        threads: threads within one operator; None leaves the choice to onnxruntime.

    Raises:
        OnnxPruneError: the model does not run, or the record cannot be read.
    """
    with recording(model, provider, threads) as (session, events):
        for _ in range(RUNS):
            session.run(feed)
        assigned = session.assignment()
    return placed(events, assigned, execution_provider(provider))


def placed(
    events: Sequence[KernelEvent], assigned: Sequence[Assigned] | None, wanted: str
) -> Placement:
    """Where nodes ran, from what onnxruntime says of them.

    Args:
        events: the record of some runs.
        assigned: the nodes as they were given to providers; None if onnxruntime does not say, and
            its kernels stand for them, which may be several nodes each.
        wanted: the execution provider that was asked for.
    """
    times: dict[str, float] = defaultdict(float)
    for event in _later(events):
        times[event.provider] += event.time
    total = sum(times.values()) or 1.0
    nodes = _kernels(events) if assigned is None else assigned
    return Placement(
        dict(Counter(node.provider for node in nodes).most_common()),
        {name: time / total for name, time in sorted(times.items(), key=lambda item: -item[1])},
        [node.name or f"a {node.op} without a name" for node in nodes if node.provider != wanted],
    )


def _later(events: Sequence[KernelEvent]) -> Iterable[KernelEvent]:
    """The kernels of all runs but the first."""
    ends = [place for place, event in enumerate(events) if event.name is None]
    start = ends[0] + 1 if len(ends) > 1 else 0
    return (event for event in events[start:] if event.name is not None)


def _kernels(events: Iterable[KernelEvent]) -> list[Assigned]:
    """Every kernel of the record once."""
    return list(
        dict.fromkeys(
            Assigned(event.name, event.op, event.provider)
            for event in events
            if event.name is not None
        )
    )
