"""What nodes that are not timed at other widths have to do, as a function of the kept counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.cost import Gates, Multilinear
from onnxprune.counts import AxisCounter, Count, Product, expand
from onnxprune.mac_terms import LINEAR_OPS, MacTerms
from onnxprune.network import Network

_DIGITS = 9
"""Shares that agree to so many digits are one."""


class NodeWork:
    """Accumulator: times in proportion to work, which counts change.

    Args:
        network: what the nodes belong to.
        shapes: shapes of its activations, as far as they are known.
        counter: what is left of its axes.
        gates: the sections that nodes go with.
    """

    def __init__(
        self,
        network: Network,
        shapes: Mapping[str, tuple[int, ...]],
        counter: AxisCounter,
        gates: Gates,
    ) -> None:
        self._network = network
        self._shapes = shapes
        self._counter = counter
        self._gates = gates
        self._macs = MacTerms(network, shapes, counter)
        self._times: dict[tuple[bytes, ...], float] = defaultdict(float)
        self._products: dict[tuple[bytes, ...], Product] = {}

    def add(self, node: gs.Node, time: float) -> None:
        """A node that takes so much time in the unpruned network.

        It goes with the multiply-accumulates of a node that has any, else with the entries it
        reads and writes; one whose shapes are not known takes the same always.
        """
        terms = self._macs.of(node) if node.op in LINEAR_OPS else self._carried(node)
        gates = self._gates.of([node])
        self._share([(term, gates) for term in terms or [()]], time)

    def add_everywhere(self, time: float) -> None:
        """Time that goes with the entries of all activations."""
        nodes = self._network.graph.nodes
        self._share([(t, self._gates.of([n])) for n in nodes for t in self._carried(n)], time)

    def add_constant(self, time: float) -> None:
        """Time that does not change."""
        self._share([], time)

    def total(self) -> Multilinear:
        """The time of all that was added, as a function of the counts."""
        nothing = np.zeros(self._counter.sizes.size + self._gates.count)
        terms = [(Count(time, nothing), *self._products[key]) for key, time in self._times.items()]
        return Multilinear.of(terms, nothing.size)

    def _carried(self, node: gs.Node) -> list[Product]:
        """The entries that a node reads and writes."""
        return [
            term
            for tensor in (*node.inputs, *node.outputs)
            if not isinstance(tensor, gs.Constant) and tensor.name in self._shapes
            for term in expand(
                [
                    self._counter.positions(tensor, axis, extent)
                    for axis, extent in enumerate(self._shapes[tensor.name])
                ]
            )
        ]

    def _share(self, terms: list[tuple[Product, IndexArray]], time: float) -> None:
        """Divide a time among terms and their gates by their size in the unpruned network."""
        sizes = np.array([self._size(term) for term, _ in terms])
        if sizes.sum() <= 0:
            terms, sizes = [((), np.zeros(0, np.int64))], np.ones(1)
        for (term, gates), share in zip(terms, sizes / sizes.sum(), strict=True):
            factors = sorted((self._relative(f) for f in term if f.slopes.any()), key=_key)
            key = (gates.tobytes(), *map(_key, factors))
            self._times[key] += time * float(share)
            self._products[key] = self._gates.behind(tuple(factors), gates)

    def _size(self, term: Product) -> float:
        return float(np.prod([self._value(factor) for factor in term]))

    def _value(self, factor: Count) -> float:
        return float(factor.constant + factor.slopes @ self._counter.sizes)

    def _relative(self, factor: Count) -> Count:
        """A factor in parts of its size in the unpruned network."""
        value = self._value(factor) or 1.0
        return Count(
            round(factor.constant / value, _DIGITS), np.round(factor.slopes / value, _DIGITS)
        )


def _key(factor: Count) -> bytes:
    return np.append(factor.slopes, factor.constant).tobytes()
