"""Rows taken from tensors on their way through the network, for whoever learns from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.linear_map import FeatureSpec
from onnxprune.train.graph import Graph
from onnxprune.train.network import Tap, Taps
from onnxprune.train.sampled_rows import RowSampler

SpecOf = Callable[[Tensor], FeatureSpec]
"""What a row of a tensor is; it may depend on the tensor's extents, as automatic padding does."""

UNCHANGED = ("Dropout", "Identity")
"""Operators behind which a tensor is, on average, what it was."""


class Observer:
    """Taps that take rows, and the rows that were taken.

    The choice of rows follows from the seed that torch has, which the loop sets anew for every
    step; nothing is drawn from torch itself, so that what else is random stays as it would be.

    Args:
        sampler: how many rows.
    """

    def __init__(self, sampler: RowSampler) -> None:
        self._sampler = sampler
        self._asked: dict[str, list[tuple[str, SpecOf]]] = defaultdict(list)
        self._taken: dict[str, list[Tensor]] = defaultdict(list)

    def watch(self, tensor: str, reader: str, spec_of: SpecOf) -> None:
        """Take rows of a tensor for a reader, who may have several tensors."""
        self._asked[tensor].append((reader, spec_of))

    def taps(self, others: Taps) -> Taps:
        """Taps that change nothing, behind others where these are on the same tensors."""
        draws = torch.Generator().manual_seed(torch.initial_seed())
        own = {name: self._tap(name, others.get(name), draws) for name in self._asked}
        return {**others, **own}

    def _tap(self, name: str, before: Tap | None, draws: torch.Generator) -> Tap:
        def tap(value: Tensor) -> Tensor:
            result = value if before is None else before(value)
            for reader, spec_of in self._asked[name]:
                rows = self._sampler.rows(spec_of(result), result, draws)
                self._taken[reader].append(rows)
            return result

        return tap

    def taken(self) -> dict[str, Tensor]:
        """Reader -> its rows since the last call, shape (parts, rows, features)."""
        found = {reader: torch.cat(rows, dim=1) for reader, rows in self._taken.items()}
        self._taken.clear()
        return found


def in_front_of_dropout(graph: Graph, tensor: str) -> str:
    """The tensor that a Dropout, or an Identity, has made this one of; else this one.

    What a Dropout does to correlations vanishes on average, but for squares, which no evaluation
    sees so large.
    """
    makers = {node.outputs[0]: node for node in graph.nodes if node.op in UNCHANGED}
    while tensor in makers and makers[tensor].inputs[0] not in graph.constants:
        tensor = makers[tensor].inputs[0]
    return tensor
