"""Every data pass: a task maps each shard to a partial result, partials are reduced in order.

Floating-point sums depend on their order. Reducing in shard order, whoever computes the partials
and whenever they finish, makes the result's bytes depend on the shards alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from onnxprune.progress import shown

Shard = TypeVar("Shard")
Partial = TypeVar("Partial")
Total = TypeVar("Total")


class Executor(Protocol):
    """Runs one pass over numbered shards."""

    def map_reduce(
        self,
        task: Callable[[int, Shard], Partial],
        shards: Iterable[Shard],
        merge: Callable[[Total, Partial], Total],
        initial: Total,
        *,
        label: str = "",
        count: int | None = None,
    ) -> Total:
        """Computes merge(... merge(initial, task(0, shard 0)) ..., task(n, shard n)).

        Args:
            task: the partial result of a shard, given its number and itself. It must not depend
                on the other shards, nor on when it runs.
            shards: taken once, from first to last; a shard is often one batch of samples.
            merge: adds a partial to the total, in shard order; may change the total in place.
            initial: the total of no shards.
            label: what the pass does, for the progress bar.
            count: how many shards there are, where known, for the progress bar.
        """
        ...


@dataclass(frozen=True)
class InProcess:
    """One shard after the other; memory holds the total and a single shard and partial.

    Attributes:
        progress: whether a long pass shows a bar, on standard error if that is a terminal.
    """

    progress: bool = True

    def map_reduce(
        self,
        task: Callable[[int, Shard], Partial],
        shards: Iterable[Shard],
        merge: Callable[[Total, Partial], Total],
        initial: Total,
        *,
        label: str = "",
        count: int | None = None,
    ) -> Total:
        """See ``Executor.map_reduce``."""
        total = initial
        bar = shown(shards, label, progress=self.progress, count=count)
        for number, shard in enumerate(bar):
            total = merge(total, task(number, shard))
        return total
