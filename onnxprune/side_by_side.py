"""The original network and changed variants of it, advancing together from cut to cut.

All compute every node once, segment by segment (see ``segments``); what they need later waits in a
``TensorStore``. What does not depend on a change is computed and held for the original alone, so a
variant costs what lies behind its first change: it reads the original's tensors there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

import onnx

from onnxprune.arrays import Array, Feed
from onnxprune.errors import OnnxPruneError
from onnxprune.executor import Executor
from onnxprune.extract import read_by
from onnxprune.runtime import Provider, Session
from onnxprune.segments import Segment, Segments
from onnxprune.tensor_store import TensorStore
from onnxprune.widening import widened

ORIGINAL = -1
LEFT = "left: "
"""Before the names of what is no tensor of a network."""
Key = tuple[str, int]
"""A tensor's name, and the number of the variant it belongs to, or ORIGINAL."""

Held = dict[Key, Array]
Partial = TypeVar("Partial")
Total = TypeVar("Total")


@dataclass(frozen=True)
class Frontier:
    """All networks' tensors at a cut, for one batch."""

    held: Mapping[Key, Array]

    def original(self, name: str) -> Array:
        """A tensor of the original network."""
        return self.held[name, ORIGINAL]

    def of(self, variant: int, name: str) -> Array:
        """The same in a variant."""
        return self.held.get((name, variant), self.held[name, ORIGINAL])

    def waiting(self, variant: int, name: str) -> Array:
        """What was left for another look (see ``SideBySide.leave``)."""
        return self.held[LEFT + name, variant]

    def differs(self, variant: int, name: str) -> bool:
        """Whether the two may differ."""
        return (name, variant) in self.held


class SideBySide:
    """Networks of the same graph with different initializers.

    Args:
        model: the original, sorted.
        cuts: where they stop: for each cut the number of nodes before it, ascending.
        wanted: for each cut the tensors wanted there.
        batches: the samples, read once, on the way to the first cut.
        changes: for every variant what initializers hold instead; ``change`` may add to it.
        store: where tensors wait.
        executor: where batches run.
        provider: where the networks run.

    Attributes:
        node_runs: how many nodes were executed, once for each batch and network.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        cuts: Sequence[int],
        wanted: Sequence[set[str]],
        batches: Iterable[Feed],
        changes: Sequence[Mapping[str, Array]],
        store: TensorStore[Key],
        executor: Executor,
        provider: Provider = "cpu",
    ) -> None:
        # a session would widen some segments and not others, which then do not fit together
        self._segments = Segments(widened(model) or model, cuts, wanted)
        self._batches, self._store = batches, store
        self._executor, self._provider = executor, provider
        self._changes = [dict(values) for values in changes]
        self._moved: list[set[str]] = [set() for _ in changes]
        self._next = 0
        self.node_runs = 0

    def change(self, variant: int, values: Mapping[str, Array]) -> None:
        """Give a variant other initializers in what lies ahead."""
        self._changes[variant] |= values

    def advance(
        self,
        task: Callable[[int, Frontier], Partial],
        merge: Callable[[Total, Partial], Total],
        initial: Total,
        *,
        label: str = "",
        last: bool = False,
    ) -> Total:
        """Go to the next cut and look at every batch there.

        Args:
            task: the partial result of a batch, given its number and the tensors at the cut.
            merge: adds a partial to the total, in the order of the batches.
            initial: the total of no batches.
            label: what the pass does, for the progress bar.
            last: whether nothing is done behind it, so that nothing needs to wait.

        Raises:
            OnnxPruneError: onnxruntime cannot run the nodes up to the cut.
        """
        segment = self._segments.all[self._next]
        frontiers, count = self._frontiers()
        self._next += 1
        parts = self._parts(segment)
        everyone = (ORIGINAL, *range(len(self._changes)))
        keep = {(name, variant) for name in segment.passed for variant in everyone}
        at_cut = keep | {(name, variant) for name in segment.outputs for variant in everyone}

        def visit(number: int, held: Held) -> tuple[int, Held, Partial]:
            for part in parts:
                held = {**held, **part.run(held)}
            reached = {key: array for key, array in held.items() if key in at_cut}
            return number, reached, task(number, Frontier(reached))

        def collect(total: Total, visited: tuple[int, Held, Partial]) -> Total:
            number, reached, partial = visited
            waiting = keep & self._store.keys(number)
            if not last:
                new = {key: array for key, array in reached.items() if key not in waiting}
                self._store.replace(number, keep, new)
            self.node_runs += sum(len(part.segment.nodes) for part in parts)
            return merge(total, partial)

        return self._executor.map_reduce(
            visit, frontiers, collect, initial, label=label, count=count
        )

    def leave(self, batch: int, arrays: Mapping[Key, Array]) -> None:
        """Let arrays of a batch wait for other looks at it at the last cut."""
        new = {(LEFT + name, variant): array for (name, variant), array in arrays.items()}
        self._store.replace(batch, self._store.keys(batch), new)

    def again(
        self,
        task: Callable[[int, Frontier], Partial],
        merge: Callable[[Total, Partial], Total],
        initial: Total,
        *,
        label: str = "",
    ) -> Total:
        """Look once more at every batch at the last cut; see ``advance``."""
        frontiers, count = self._frontiers()

        def visit(number: int, held: Held) -> Partial:
            return task(number, Frontier(held))

        return self._executor.map_reduce(visit, frontiers, merge, initial, label=label, count=count)

    def _frontiers(self) -> tuple[Iterator[Held], int | None]:
        """What is held of every batch at the last cut, and how many batches there are."""
        if self._next:
            return map(self._store.get, range(len(self._store))), len(self._store)
        names = self._segments.inputs
        feeds = ({(name, ORIGINAL): feed[name] for name in names} for feed in self._batches)
        return feeds, len(self._batches) if isinstance(self._batches, Sized) else None

    def _parts(self, segment: Segment) -> list[_Part]:
        """What each network computes on the way from one cut to the next, the original first."""
        outputs = set(segment.outputs)
        variants = []
        for changes, moved in zip(self._changes, self._moved, strict=True):
            moved |= changes.keys() & segment.initializers
            nodes = []
            for node in segment.nodes:
                if not moved.isdisjoint(read_by(node)):
                    moved.update(node.output)
                    nodes.append(node)
            variants.append(self._segments.part(segment, nodes, moved & outputs))
        shared = {name for part in variants for name in part.inputs} - set(segment.inputs)
        original = self._segments.part(segment, segment.nodes, outputs | shared)
        parts = [_Part(self._segments, original, ORIGINAL, {}, self._provider)]
        for number, part in enumerate(variants):
            changes = dict(self._changes[number])
            parts.append(_Part(self._segments, part, number, changes, self._provider))
        return [part for part in parts if part.segment.nodes]


class _Part:
    """What one of the networks computes of a segment.

    Args:
        segments: where the segment is from.
        segment: the nodes.
        own: whose they are, ORIGINAL or the number of a variant.
        values: initializers that hold something else.
        provider: where they run.
    """

    def __init__(
        self,
        segments: Segments,
        segment: Segment,
        own: int,
        values: Mapping[str, Array],
        provider: Provider,
    ) -> None:
        self.segment = segment
        self._segments, self._own, self._values = segments, own, values
        self._provider = provider
        self._session: Session | None = None

    def run(self, held: Held) -> Held:
        """The segment's outputs; where a variant has no tensor, it is the original's."""
        names = self.segment.inputs
        feed = {n: held[(n, self._own) if (n, self._own) in held else (n, ORIGINAL)] for n in names}
        outputs = self.segment.outputs
        try:
            if self._session is None:  # types are those of the first batch
                model = self._segments.model(self.segment, feed, self._values)
                self._session = Session(model, provider=self._provider, arena=False)
            arrays = self._session.run(feed, outputs)
        except OnnxPruneError as error:
            first, last = self.segment.nodes[0].name, self.segment.nodes[-1].name
            raise OnnxPruneError(
                f"onnxruntime cannot run the nodes from '{first}' to '{last}' on their own, which "
                f"refitting the layers in order needs; refit each by itself instead ({error})"
            ) from error
        return {(name, self._own): array for name, array in zip(outputs, arrays, strict=True)}
