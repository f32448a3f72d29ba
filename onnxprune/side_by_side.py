"""The original network and changed variants of it, advancing together from cut to cut.

All compute every node once, segment by segment (see ``segments``); what they need later waits in a
``TensorStore``. What does not depend on a change is computed and held for the original alone, so a
variant costs what lies behind its first change.
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

ORIGINAL = -1
Key = tuple[str, int]
"""A tensor's name, and the number of the variant it belongs to, or ORIGINAL."""

Held = Mapping[Key, Array]
Partial = TypeVar("Partial")
Total = TypeVar("Total")


@dataclass(frozen=True)
class Frontier:
    """All networks' tensors at a cut, for one batch."""

    held: Held

    def original(self, name: str) -> Array:
        """A tensor of the original network."""
        return self.held[name, ORIGINAL]

    def of(self, variant: int, name: str) -> Array:
        """The same in a variant."""
        return self.held.get((name, variant), self.held[name, ORIGINAL])

    def differs(self, variant: int, name: str) -> bool:
        """Whether the two may differ."""
        return (name, variant) in self.held


class SideBySide:
    """Networks of the same graph with different initializers.

    Args:
        model: the original, sorted.
        cuts: where they stop: for each cut the number of nodes before it, ascending.
        wanted: for each cut the tensors wanted there.
        batches: the samples, read once.
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
        self._segments = Segments(model, cuts, wanted)
        self._store, self._executor, self._provider = store, executor, provider
        self._changes = [dict(values) for values in changes]
        self._moved: list[set[str]] = [set() for _ in changes]
        self._next = 0
        self.node_runs = 0
        for number, feed in enumerate(batches):
            needed = {(name, ORIGINAL): feed[name] for name in self._segments.inputs}
            store.replace(number, (), needed)

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
        runs = self._runs(segment)
        everyone = (ORIGINAL, *range(len(self._changes)))
        keep = {(name, variant) for name in segment.passed for variant in everyone}

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

    def _runs(self, segment: Segment) -> list[Callable[[Held], Iterable[tuple[Key, Array]]]]:
        """What computes a segment's outputs from a frontier, for all networks."""
        runs = []
        if segment.outputs:
            runs.append(self._run(segment, ORIGINAL, list(segment.outputs), {}))
        for variant, changes in enumerate(self._changes):
            moved = self._moved[variant]
            moved |= changes.keys() & segment.initializers
            for node in segment.nodes:
                if not moved.isdisjoint(read_by(node)):
                    moved.update(node.output)
            outputs = [name for name in segment.outputs if name in moved]
            if outputs:
                runs.append(self._run(segment, variant, outputs, changes))
        return runs

    def _run(
        self, segment: Segment, variant: int, outputs: list[str], values: Mapping[str, Array]
    ) -> Callable[[Held], Iterable[tuple[Key, Array]]]:
        example = self._inputs(segment, variant, self._store.get(0))
        model = self._segments.model(segment, example, values)
        session = Session(model, provider=self._provider, arena=False)
        self.node_runs += len(segment.nodes) * len(self._store)

        def run(held: Held) -> Iterable[tuple[Key, Array]]:
            arrays = session.run(self._inputs(segment, variant, held), outputs)
            return zip([(name, variant) for name in outputs], arrays, strict=True)

        return run

    @staticmethod
    def _inputs(segment: Segment, variant: int, held: Held) -> Feed:
        """What a segment reads of a frontier; a variant's own where it has one."""
        names = segment.inputs
        return {n: held[n, variant] if (n, variant) in held else held[n, ORIGINAL] for n in names}
