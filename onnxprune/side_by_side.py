"""The original network and a changed one, advancing together from cut to cut.

Both compute every node once, segment by segment (see ``segments``); what they need later waits in
a ``TensorStore``. What does not depend on a change is computed and held for the original alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx

from onnxprune.arrays import Array, Feed
from onnxprune.executor import Executor
from onnxprune.extract import read_by
from onnxprune.runtime import Provider, Session
from onnxprune.segments import Segment, Segments
from onnxprune.tensor_store import TensorStore

ORIGINAL, CHANGED = 0, 1
Key = tuple[str, int]
"""A tensor's name, and whose it is."""

Partial = TypeVar("Partial")
Total = TypeVar("Total")


@dataclass(frozen=True)
class Frontier:
    """Both networks' tensors at a cut, for one batch."""

    held: Mapping[Key, Array]

    def original(self, name: str) -> Array:
        """A tensor of the original network."""
        return self.held[name, ORIGINAL]

    def changed(self, name: str) -> Array:
        """The same in the changed one."""
        return self.held.get((name, CHANGED), self.held[name, ORIGINAL])

    def differs(self, name: str) -> bool:
        """Whether the two may differ."""
        return (name, CHANGED) in self.held


class SideBySide:
    """Two networks of the same graph with different initializers.

    Args:
        model: the original, sorted.
        cuts: where they stop: for each cut the number of nodes before it, ascending.
        wanted: for each cut the tensors wanted there.
        batches: the samples, read once.
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
        store: TensorStore[Key],
        executor: Executor,
        provider: Provider = "cpu",
    ) -> None:
        self._segments = Segments(model, cuts, wanted)
        self._store, self._executor, self._provider = store, executor, provider
        self._changes: dict[str, Array] = {}
        self._moved: set[str] = set()
        self._next = 0
        self.node_runs = 0
        for number, feed in enumerate(batches):
            needed = {(name, ORIGINAL): feed[name] for name in self._segments.inputs}
            store.replace(number, (), needed)

    def change(self, values: Mapping[str, Array]) -> None:
        """Give the changed network other initializers in what lies ahead."""
        self._changes |= values

    def advance(
        self,
        task: Callable[[int, Frontier], Partial],
        merge: Callable[[Total, Partial], Total],
        initial: Total,
        *,
        label: str = "",
    ) -> Total:
        """Go to the next cut and look at every batch there.

        Args:
            task: the partial result of a batch, given its number and the tensors at the cut.
            merge: adds a partial to the total, in the order of the batches.
            initial: the total of no batches.
            label: what the pass does, for the progress bar.
        """
        segment = self._segments.all[self._next]
        self._next += 1
        self._moved |= self._changes.keys() & segment.initializers
        for node in segment.nodes:
            if not self._moved.isdisjoint(read_by(node)):
                self._moved.update(node.output)
        runs = self._runs(segment)
        keep = {(name, own) for name in segment.passed for own in (ORIGINAL, CHANGED)}

        def visit(_: int, batch: int) -> tuple[int, dict[Key, Array], Partial]:
            held = self._store.get(batch)
            new = {key: array for run in runs for key, array in run(held)}
            at_cut = {key: array for key, array in held.items() if key in keep} | new
            return batch, new, task(batch, Frontier(at_cut))

        def collect(total: Total, visited: tuple[int, dict[Key, Array], Partial]) -> Total:
            batch, new, partial = visited
            self._store.replace(batch, keep, new)
            return merge(total, partial)

        numbers = range(len(self._store))
        return self._executor.map_reduce(visit, numbers, collect, initial, label=label)

    def _runs(
        self, segment: Segment
    ) -> list[Callable[[Mapping[Key, Array]], Iterable[tuple[Key, Array]]]]:
        """What computes a segment's outputs from a frontier, for both networks."""
        runs = []
        moved = [name for name in segment.outputs if name in self._moved]
        for own, outputs, values in (
            (ORIGINAL, list(segment.outputs), {}),
            (CHANGED, moved, self._changes),
        ):
            if outputs:
                runs.append(self._run(segment, own, outputs, values))
                self.node_runs += len(segment.nodes) * len(self._store)
        return runs

    def _run(
        self, segment: Segment, own: int, outputs: list[str], values: Mapping[str, Array]
    ) -> Callable[[Mapping[Key, Array]], Iterable[tuple[Key, Array]]]:
        example = self._inputs(segment, own, self._store.get(0))
        model = self._segments.model(segment, example, values)
        session = Session(model, provider=self._provider, arena=False)

        def run(held: Mapping[Key, Array]) -> Iterable[tuple[Key, Array]]:
            arrays = session.run(self._inputs(segment, own, held), outputs)
            return zip([(name, own) for name in outputs], arrays, strict=True)

        return run

    @staticmethod
    def _inputs(segment: Segment, own: int, held: Mapping[Key, Array]) -> Feed:
        """What a segment reads of a frontier; the changed network's own where it has one."""
        return {name: held.get((name, own), held[name, ORIGINAL]) for name in segment.inputs}
