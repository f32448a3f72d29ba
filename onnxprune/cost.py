"""Parameters, MACs and channels as multilinear functions of the groups' kept counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, Matrix, Vector
from onnxprune.canonical import concrete
from onnxprune.groups import FROZEN, Network

LINEAR_OPS = ("Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Count:
    """How many indices of an axis survive: constant + slopes @ counts."""

    constant: float
    slopes: Vector


@dataclass(frozen=True)
class Multilinear:
    """sum_t coefficient_t * prod_f (constant_tf + slopes_tf @ counts).

    Attributes:
        coefficients: shape (terms,).
        constants: shape (terms, factors).
        slopes: shape (terms, factors, groups).
    """

    coefficients: Vector
    constants: Matrix
    slopes: Vector

    def __call__(self, counts: Array) -> Vector:
        """The cost at kept counts of shape (..., groups), shape (...)."""
        factors = self.constants + np.einsum(
            "...g,tfg->...tf", np.asarray(counts, np.float64), self.slopes, optimize=True
        )
        total: Vector = factors.prod(axis=-1) @ self.coefficients
        return total

    @classmethod
    def of(cls, terms: Sequence[tuple[float, Sequence[Count]]], groups: int) -> Multilinear:
        """Collect terms (coefficient, factors)."""
        width = max((len(factors) for _, factors in terms), default=0)
        constants = np.ones((len(terms), width))
        slopes = np.zeros((len(terms), width, groups))
        for row, (_, factors) in enumerate(terms):
            for column, factor in enumerate(factors):
                constants[row, column] = factor.constant
                slopes[row, column] = factor.slopes
        return cls(np.array([c for c, _ in terms], np.float64), constants, slopes)


@dataclass(frozen=True)
class CostModel:
    """What a network costs as a function of its groups' kept counts.

    Attributes:
        macs: multiply-accumulates of convolutions, Gemm and MatMul for one sample.
        params: elements of floating-point constants.
        node_macs: name of a node -> MACs it takes in the unpruned network.
        uncounted: names of the nodes whose output positions are not known; their weights count as
            if each were used once.
    """

    macs: Multilinear
    params: Multilinear
    node_macs: Mapping[str, float]
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
    macs: list[tuple[float, Sequence[Count]]] = []
    node_macs = {}
    linear = [node for node in network.graph.nodes if node.op in LINEAR_OPS]
    for node in linear:
        repeats, factors = _mac_term(node, network, shapes, counter)
        macs.append((repeats, factors))
        node_macs[node.name] = repeats * float(
            np.prod([factor.constant + factor.slopes @ sizes for factor in factors])
        )
    params = [
        (1.0, [counter.count(tensor, axis) for axis in range(len(tensor.shape))])
        for tensor in network.graph.tensors().values()
        if is_parameter(tensor)
    ]
    return CostModel(
        Multilinear.of(macs, sizes.size),
        Multilinear.of(params, sizes.size),
        node_macs,
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
        self._group_of = np.repeat(np.arange(self.sizes.size), self.sizes.astype(np.int64))
        self._shared = dict(_shared_axes(network))

    def count(self, tensor: gs.Tensor, axis: int) -> Count:
        """How many indices of an axis survive."""
        if (id(tensor), axis) in self._shared:
            activation, channel_axis, parts = self._shared[id(tensor), axis]
            whole = self.count(activation, channel_axis)
            if not whole.constant and not whole.slopes.any():  # an input of unknown extent
                return self.fixed(float(tensor.shape[axis]))
            return Count(whole.constant / parts, whole.slopes / parts)
        channels = self._network.channels(tensor, axis)
        owners = self._group_of[channels[channels != FROZEN]]
        entries = np.bincount(owners, minlength=self.sizes.size)
        slopes = np.divide(entries, self.sizes, out=np.zeros_like(self.sizes), where=self.sizes > 0)
        return Count(float((channels == FROZEN).sum()), slopes)

    def fixed(self, extent: float) -> Count:
        """A count that no group changes."""
        return Count(extent, np.zeros_like(self.sizes))


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
            axis, tensor, place = linear_map.out_axis, linear_map.node.outputs[0], linear_map.y_axis
        else:
            axis, tensor, place = linear_map.in_axis, linear_map.node.inputs[0], linear_map.x_axis
        yield (id(linear_map.weight), axis), (tensor, place, linear_map.groups)


def _mac_term(
    node: gs.Node,
    network: Network,
    shapes: Mapping[str, tuple[int, ...]],
    counter: AxisCounter,
) -> tuple[float, list[Count]]:
    """(repeats, factors) of a linear node: every weight is used once per output position."""
    weight, y = node.inputs[1], node.outputs[0]
    shape = shapes.get(y.name)
    if not isinstance(weight, gs.Constant):
        inner = shapes.get(node.inputs[0].name, (0,))[-1]
        return float(inner * np.prod(shape)) if shape else 0.0, [counter.fixed(1.0)]
    factors = [counter.count(weight, axis) for axis in range(len(weight.shape))]
    if shape is None:
        return 1.0, factors
    if node.op == "ConvTranspose":
        shape = shapes.get(node.inputs[0].name, shape)
    linear_map = network.producers.get(node.name)
    y_axis = linear_map.y_axis if linear_map else (len(shape) - 1 if node.op == "MatMul" else 1)
    positions = [extent for axis, extent in enumerate(shape) if axis != y_axis]
    return float(np.prod(positions)), factors
