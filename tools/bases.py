"""Convolutions in fewer basis filters: k x k onto a basis of their outputs, then 1 x 1 back.

A convolution y = W x + b with O outputs becomes r filters U^T W, U orthonormal of shape (O, r), and
a 1 x 1 convolution with weights U (basis scaling and double pruning, with the basis filters of
least scale dropped). Two bases:

    weights    left singular vectors of W; scales are its singular values; the bias stays
    outputs    principal components of y; scales are their deviations; b + (I - U U^T)(E y - b)

The second leaves the least squared error that rank r can on the images that are looked at (derived
here). At one position r filters take r (C k^2 + O) multiplications instead of O C k^2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from macs import layer_macs

from onnxprune import find_groups
from onnxprune.arrays import Array, Matrix, Vector
from onnxprune.linear_map import FeatureSpec, LinearMap
from onnxprune.model import export_graph
from onnxprune.statistics import collect

BATCH = 50


@dataclass(frozen=True)
class Basis:
    """One convolution's outputs in an orthonormal basis, the largest scale first.

    Attributes:
        name: of the convolution.
        vectors: the basis, shape (outputs, outputs), a vector in each column.
        bias: what is added to y for what the basis leaves out, before the projection onto that:
            E y - b, shape (outputs,).
        unexplained: share of the squared scales behind the first r vectors, shape (outputs + 1,).
        fan_in: weights of each output, C k^2.
        macs: multiplications of the convolution as it is.
    """

    name: str
    vectors: Matrix
    bias: Vector
    unexplained: Vector
    fan_in: int
    macs: float

    def cost(self, rank: int) -> float:
        """Multiplications in a basis of this rank."""
        outputs = len(self.vectors)
        return self.macs * rank * (self.fan_in + outputs) / (self.fan_in * outputs)

    def rank(self, level: float, step: int = 1) -> int | None:
        """Vectors that leave at most this share unexplained; None where they cost more than W.

        Args:
            level: the share.
            step: their number is a multiple of this.
        """
        needed = max(int(np.argmax(self.unexplained <= level)), 1)
        rank = -(-needed // step) * step
        return rank if rank <= len(self.vectors) and self.cost(rank) < self.macs else None


def of_weights(canonical: onnx.ModelProto, shape: Sequence[int]) -> list[Basis]:
    """Bases of all dense convolutions by singular values of their weights.

    Args:
        canonical: the network.
        shape: of its input with one sample.
    """
    found = []
    for linear_map, macs in _convolutions(canonical, shape):
        vectors, scales, _ = np.linalg.svd(linear_map.rows())
        none = np.zeros(len(vectors))
        squares = np.append(scales**2, np.zeros(len(vectors) - len(scales)))
        found.append(_basis(linear_map, macs, vectors, squares, none))
    return found


def of_outputs(canonical: onnx.ModelProto, inputs: Array) -> list[Basis]:
    """Bases of all dense convolutions by the principal components of their outputs."""
    layers = list(_convolutions(canonical, (1, *inputs.shape[1:])))
    specs = {m.name: FeatureSpec(m.y.name, 4, 1) for m, _ in layers}
    name = canonical.graph.input[0].name
    feeds = ({name: inputs[i : i + BATCH]} for i in range(0, len(inputs), BATCH))
    grams = collect(canonical, [*specs.values()], feeds, samples=len(inputs), threads=1)
    found = []
    for linear_map, macs in layers:
        moments = grams[specs[linear_map.name]].part()
        mean = moments[:-1, -1]
        scales, vectors = np.linalg.eigh(moments[:-1, :-1] - np.outer(mean, mean))
        left = mean - linear_map.bias_vector()
        found.append(_basis(linear_map, macs, vectors[:, ::-1], scales[::-1], left))
    return found


def _basis(
    linear_map: LinearMap, macs: float, vectors: Matrix, squares: Vector, left: Vector
) -> Basis:
    held = np.maximum(squares, 0.0)
    behind = np.append(held[::-1].cumsum()[::-1], 0.0) / max(held.sum(), np.finfo(float).tiny)
    fan_in = linear_map.rows().shape[1]
    return Basis(linear_map.name, vectors, left, behind, fan_in, macs)


def _convolutions(
    canonical: onnx.ModelProto, shape: Sequence[int]
) -> Iterator[tuple[LinearMap, float]]:
    """The convolutions in one part with weights of their own, and their MACs."""
    macs = layer_macs(canonical, {canonical.graph.input[0].name: tuple(shape)})
    for name, linear_map in find_groups(canonical).consumers.items():
        if linear_map.node.op == "Conv" and linear_map.groups == 1 and not linear_map.twins:
            yield linear_map, macs[name]


def ranks_under(bases: Sequence[Basis], full: float, limit: float, step: int = 1) -> dict[str, int]:
    """Name -> rank at the lowest level of unexplained variance that meets a limit on the MACs.

    Args:
        bases: of the convolutions; one level for all.
        full: MACs of the network as it is.
        limit: MACs of the network with bases.
        step: ranks are multiples of this.

    Raises:
        ValueError: no level meets it.
    """
    levels = np.unique(np.concatenate([basis.unexplained for basis in bases]))

    def at(level: float) -> dict[str, int]:
        ranks = {basis.name: basis.rank(level, step) for basis in bases}
        return {name: rank for name, rank in ranks.items() if rank is not None}

    def left(level: float) -> float:
        ranks = at(level)
        return full - sum(b.macs - b.cost(ranks[b.name]) for b in bases if b.name in ranks)

    if left(levels[-1]) > limit:
        raise ValueError(
            f"the lowest ranks leave {left(levels[-1]):.3g} MACs, more than {limit:.3g}"
        )
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(levels[middle]) <= limit else (middle + 1, high)
    return at(levels[low])


def in_bases(
    canonical: onnx.ModelProto, bases: Iterable[Basis], ranks: Mapping[str, int]
) -> onnx.ModelProto:
    """The network with every convolution of ``ranks`` in that many of its basis filters."""
    network = find_groups(canonical)
    for basis in bases:
        if basis.name in ranks:
            kept = basis.vectors[:, : ranks[basis.name]]
            _divide(network.graph, network.consumers[basis.name], kept, basis.bias)
    return export_graph(network.graph.cleanup(), canonical)


def _divide(graph: gs.Graph, linear_map: LinearMap, kept: Matrix, left: Vector) -> None:
    """Write a convolution as k x k onto these vectors, and 1 x 1 from them."""
    node, weight = linear_map.node, linear_map.weight.values
    outputs, rank = kept.shape
    filters = (kept.T @ linear_map.rows()).reshape(rank, *weight.shape[1:])
    bias = linear_map.bias_vector() + left - kept @ (kept.T @ left)
    mix = kept.reshape(outputs, rank, *[1] * (weight.ndim - 2))
    inner = gs.Variable(f"{node.name}/basis", dtype=weight.dtype)
    node.inputs = [linear_map.x, gs.Constant(f"{node.name}/filters", filters.astype(weight.dtype))]
    parameters = (
        gs.Constant(f"{node.name}/{n}", v.astype(weight.dtype))
        for n, v in (("mix", mix), ("shift", bias))
    )
    made = gs.Node(
        "Conv",
        f"{node.name}/mix",
        {"kernel_shape": [1] * (weight.ndim - 2)},
        [inner, *parameters],
        list(node.outputs),
    )
    node.outputs = [inner]
    graph.nodes.insert(graph.nodes.index(node) + 1, made)
