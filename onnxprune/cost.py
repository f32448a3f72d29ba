"""Parameters, MACs and channels as multilinear functions of the groups' kept counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.canonical import concrete
from onnxprune.network import FROZEN, Network

LINEAR_OPS = ("Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Count:
    """A factor of a cost: constant + slopes @ counts."""

    constant: float
    slopes: Vector


Product = tuple[Count, ...]
Sum = Sequence[Product]
"""How many indices of an axis survive: a sum of products, of one factor where nothing is a grid."""


def expand(factors: Sequence[Sum]) -> list[Product]:
    """The product of sums as a sum of products."""
    return [tuple(chain.from_iterable(pick)) for pick in product(*factors)]


@dataclass(frozen=True)
class Multilinear:
    """sum_t prod_f (constant_tf + slopes_tf @ counts).

    Attributes:
        constants: shape (terms, factors).
        slopes: shape (terms, factors, groups).
    """

    constants: Matrix
    slopes: Vector

    def __call__(self, counts: Array) -> Vector:
        """The cost at kept counts of shape (..., groups), shape (...)."""
        factors = self.constants + np.einsum(
            "...g,tfg->...tf", np.asarray(counts, np.float64), self.slopes, optimize=True
        )
        total: Vector = factors.prod(axis=-1).sum(axis=-1)
        return total

    def scaled(self, factor: float) -> Multilinear:
        """The cost times a factor."""
        first = np.ones_like(self.constants)
        first[:, :1] = factor
        return Multilinear(self.constants * first, self.slopes * first[..., None])

    @classmethod
    def of(cls, terms: Sequence[Product], groups: int) -> Multilinear:
        """Collect terms."""
        width = max(map(len, terms), default=0)
        constants = np.ones((len(terms), width))
        slopes = np.zeros((len(terms), width, groups))
        for row, factors in enumerate(terms):
            for column, factor in enumerate(factors):
                constants[row, column] = factor.constant
                slopes[row, column] = factor.slopes
        return cls(constants, slopes)


@dataclass(frozen=True)
class CostModel:
    """What a network costs as a function of its groups' kept counts.

    Attributes:
        macs: multiply-accumulates of convolutions, Gemm and MatMul for one sample.
        params: elements of floating-point constants.
        node_macs: name of a node -> MACs it takes in the unpruned network.
        shrinking: names of the nodes that take fewer when groups are cut.
        uncounted: names of the nodes whose output positions are not known; their weights count as
            if each were used once.
    """

    macs: Multilinear
    params: Multilinear
    node_macs: Mapping[str, float]
    shrinking: frozenset[str] = frozenset()
    uncounted: tuple[str, ...] = ()


def cost_model(
    network: Network, model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int | None, ...]]
) -> CostModel:
    """The costs of a network for inputs of these shapes.

    Args:
        network: the groups of the model.
        model: the canonical model itself.
        input_shapes: a shape for each graph input, with a batch of one sample; None for an extent
            that is not known.
    """
    shapes = tensor_shapes(concrete(model, input_shapes))
    counter = AxisCounter(network)
    sizes = counter.sizes
    linear = [node for node in network.graph.nodes if node.op in LINEAR_OPS]
    macs = {node.name: _mac_terms(node, network, shapes, counter) for node in linear}
    params = [
        product
        for tensor in network.graph.tensors().values()
        if is_parameter(tensor)
        for product in expand([counter.count(tensor, axis) for axis in range(len(tensor.shape))])
    ]
    return CostModel(
        Multilinear.of([product for products in macs.values() for product in products], sizes.size),
        Multilinear.of(params, sizes.size),
        {
            name: float(Multilinear.of(products, sizes.size)(sizes))
            for name, products in macs.items()
        },
        frozenset(
            name
            for name, products in macs.items()
            if any(factor.slopes.any() for product in products for factor in product)
        ),
        tuple(node.name for node in linear if node.outputs[0].name not in shapes),
    )


def parameter_count(model: onnx.ModelProto) -> int:
    """Elements of floating-point initializers and constants of a model's main graph."""
    graph = gs.import_onnx(model)
    constants = [t for t in graph.tensors().values() if is_parameter(t)]
    values = [node.attrs.get("value") for node in graph.nodes if node.op == "Constant"]
    inline = [v for v in values if v is not None and is_parameter(v)]
    return sum(int(np.prod(t.shape)) for t in (*constants, *inline))


def is_parameter(tensor: gs.Tensor) -> bool:
    """Whether a tensor is a floating-point constant, not a shape or an index."""
    if not isinstance(tensor, gs.Constant):
        return False
    kind = tensor.dtype
    return not isinstance(kind, int) and bool(np.issubdtype(np.dtype(kind), np.floating))


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors whose extents are all known numbers."""
    shapes = {}
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    for value in values:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    return shapes


class AxisCounter:
    """Turns axes into counts of surviving indices."""

    def __init__(self, network: Network) -> None:
        self.sizes: Vector = np.array([g.size for g in network.groups], np.float64)
        self._network = network
        self._size = network.size
        self._group_of = np.repeat(np.arange(self.sizes.size), self.sizes.astype(np.int64))
        self._shared = dict(_shared_axes(network))

    def count(self, tensor: gs.Tensor, axis: int) -> Sum:
        """How many indices of an axis survive."""
        if (id(tensor), axis) in self._shared:
            activation, channel_axis, parts = self._shared[id(tensor), axis]
            (whole,) = self.count(activation, channel_axis)
            if not whole[0].constant and not whole[0].slopes.any():  # an input of unknown extent
                return self.fixed(float(tensor.shape[axis]))
            return [(Count(whole[0].constant / parts, whole[0].slopes / parts),)]
        channels = self._network.channels(tensor, axis)
        products = self._network.products[channels[channels >= self._size] - self._size]
        owners = self._group_of[channels[(channels != FROZEN) & (channels < self._size)]]
        frozen = float((channels == FROZEN).sum())
        terms = [(Count(frozen, self._shares(owners)),)]
        return [*terms, *self._grids(products)] if frozen or owners.size else self._grids(products)

    def _shares(self, owners: IndexArray) -> Vector:
        """Indices per unit of every group, for indices of these groups."""
        entries = np.bincount(owners, minlength=self.sizes.size)
        return np.divide(entries, self.sizes, out=np.zeros_like(self.sizes), where=self.sizes > 0)

    def _grids(self, needed: IndexArray) -> list[Product]:
        """Indices that need a channel of each of several groups: the product of their shares."""
        owners = np.append(self._group_of, FROZEN)[needed]
        grids, cells = np.unique(np.sort(owners, axis=1), axis=0, return_counts=True)
        terms = []
        for grid, number in zip(grids, cells, strict=True):
            groups = grid[grid != FROZEN]
            shares = [self._shares(group.reshape(1)) for group in groups]
            shares[0] = shares[0] * number
            terms.append(tuple(Count(0.0, share) for share in shares))
        return terms

    def fixed(self, extent: float) -> Sum:
        """A count that no group changes."""
        return [(Count(extent, np.zeros_like(self.sizes)),)]


def _shared_axes(
    network: Network,
) -> Iterator[tuple[tuple[int, int], tuple[gs.Tensor, int, int]]]:
    """Axes of grouped weights with one index for a channel of every part.

    Yields (identity of the weight, axis), then the activation, its axis and the number of parts.
    """
    for linear_map in network.consumers.values():
        if linear_map.groups == 1:
            continue
        if linear_map.transposed:
            axis, tensor, place = linear_map.out_axis, linear_map.y, linear_map.y_axis
        else:
            axis, tensor, place = linear_map.in_axis, linear_map.x, linear_map.x_axis
        yield (id(linear_map.weight), axis), (tensor, place, linear_map.groups)


def _mac_terms(
    node: gs.Node,
    network: Network,
    shapes: Mapping[str, tuple[int, ...]],
    counter: AxisCounter,
) -> list[Product]:
    """MACs of a linear node: every weight is used once per output position.

    A product of two activations takes one for every output element and index summed over.
    """
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    constant = isinstance(weight, gs.Constant)

    def extents(tensor: gs.Tensor, *left_out: int) -> list[Sum]:
        """Counts along the axes of an activation, where its shape is known."""
        shape = shapes.get(tensor.name, ())
        return [
            counter.count(tensor, axis)
            if (network.channels(tensor, axis) != FROZEN).any()
            else counter.fixed(extent)
            for axis, extent in enumerate(shape)
            if axis - len(shape) not in left_out and axis not in left_out
        ]

    if not constant:
        inner = extents(x, *range(-len(shapes.get(x.name, ())), -1))
        return expand([*inner, *extents(y)]) if inner and y.name in shapes else []
    weights = [counter.count(weight, axis) for axis in range(len(weight.shape))]
    if node.op == "ConvTranspose":  # every position of x is spread over y
        return expand([*weights, *extents(x, 1)])
    linear_map = network.producers.get(node.name)
    y_axis = linear_map.y_axis if linear_map else (-1 if node.op == "MatMul" else 1)
    return expand([*weights, *extents(y, y_axis)])
