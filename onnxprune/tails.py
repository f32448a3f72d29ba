"""What a branch adds once its last linear maps make nothing but a constant.

Between these maps and the join stand nodes that scale, shift or move channels: LayerScale, the
bias of a MatMul, transpositions, the windows of a Swin. They are followed backwards from what
the branch ends in, channel by channel: sum over maps of scale * y + shift. A node that only maps
zero to zero (an activation, a gate) leaves nothing of a map whose output is zero, and is followed
as a scale of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Vector
from onnxprune.linear_map import LinearMap

CARRIED = frozenset({"Dropout", "Identity"})
"""Operators that hand their first input on."""
ZERO_TO_ZERO = frozenset(
    {
        "Abs",
        "AveragePool",
        "Elu",
        "Erf",
        "Gelu",
        "GlobalAveragePool",
        "HardSwish",
        "LeakyRelu",
        "MaxPool",
        "Mish",
        "Neg",
        "PRelu",
        "Relu",
        "Selu",
        "Softsign",
        "Swish",
        "Tanh",
    }
)
"""Operators that make nothing but zeros of zeros, and leave the channel axis where it is."""
DATA_ONLY = 1 << 40
"""Counts of axes that nothing real has."""


class BlockedError(Exception):
    """A branch cannot be reduced to a constant; the message says why."""


@dataclass(frozen=True)
class Tail:
    """A tensor as a function of the linear maps it ends in, one value per channel.

    Attributes:
        axis: the channel axis of the tensor.
        parts: the maps, each with what its output is multiplied by, shape (channels,).
        shift: what is added, shape (channels,).
    """

    axis: int
    parts: tuple[tuple[LinearMap, Vector], ...]
    shift: Vector

    @property
    def maps(self) -> tuple[LinearMap, ...]:
        """The maps."""
        return tuple(linear_map for linear_map, _ in self.parts)

    def constant(self, outputs: Mapping[str, Vector]) -> Vector:
        """The tensor where the maps make these constants, shape (channels,).

        Args:
            outputs: name of every map -> what it makes, shape (channels,).
        """
        return self.shift + sum(scale * outputs[m.name] for m, scale in self.parts)

    def scaled(self, factor: Vector) -> Tail:
        """The tensor times a number per channel."""
        parts = tuple((linear_map, scale * factor) for linear_map, scale in self.parts)
        return replace(self, parts=parts, shift=self.shift * factor)


@dataclass(frozen=True)
class TailFinder:
    """Follows tensors back to the linear maps they end in.

    Attributes:
        maps: identity of a tensor -> the map that makes it.
        branch: names of the nodes of the branch; what they read from elsewhere is not followed.
    """

    maps: Mapping[int, LinearMap]
    branch: frozenset[str]

    def of(self, tensor: gs.Tensor) -> Tail:
        """The tensor as a function of linear maps.

        Raises:
            BlockedError: it is no such function, or not one that vanishes with them.
        """
        node = tensor.inputs[0] if tensor.inputs else None
        if node is None or node.name not in self.branch or isinstance(tensor, gs.Constant):
            raise BlockedError(
                f"'{tensor.name}', which is made elsewhere, is a summand of its branch"
            )
        linear_map = self.maps.get(id(tensor))
        if linear_map is not None:
            return _start(linear_map)
        if node.op in CARRIED:
            return self.of(node.inputs[0])
        if node.op in ("Add", "Sub"):
            return self._sum(node)
        if node.op in ("Mul", "Div"):
            return self._product(node)
        if node.op in ZERO_TO_ZERO:
            return _vanishing(self.of(node.inputs[0]), node)
        if node.op in ("Gather", "Reshape", "Slice", "Transpose"):
            return _moved(self.of(node.inputs[0]), node)
        if node.op == "Concat":
            return self._joined(node)
        raise BlockedError(
            f"{node.op} '{node.name}' stands between the last layers of its branch and the join"
        )

    def _sum(self, node: gs.Node) -> Tail:
        first, second = node.inputs
        if isinstance(second, gs.Constant) or (isinstance(first, gs.Constant) and node.op == "Add"):
            data, constant = (first, second) if isinstance(second, gs.Constant) else (second, first)
            tail = self.of(data)
            values = _per_channel(constant, data, tail, node)
            return replace(tail, shift=tail.shift + (values if node.op == "Add" else -values))
        if node.op == "Sub" or isinstance(first, gs.Constant):
            raise BlockedError(f"Sub '{node.name}' ends its branch")
        left, right = self.of(first), self.of(second)
        if left.axis != right.axis or left.shift.size != right.shift.size:
            raise BlockedError(f"Add '{node.name}' in its branch broadcasts")
        return Tail(left.axis, left.parts + right.parts, left.shift + right.shift)

    def _product(self, node: gs.Node) -> Tail:
        first, second = node.inputs
        if isinstance(second, gs.Constant):
            tail = self.of(first)
            values = _per_channel(second, first, tail, node)
            return tail.scaled(1 / values if node.op == "Div" else values)
        if node.op == "Div":
            raise BlockedError(f"Div '{node.name}' ends its branch")
        if isinstance(first, gs.Constant):
            tail = self.of(second)
            return tail.scaled(_per_channel(first, second, tail, node))
        return self._gated(node)

    def _gated(self, node: gs.Node) -> Tail:
        """A product of two activations vanishes with either of them."""
        reasons = []
        for factor in node.inputs:
            try:
                tail = _vanishing(self.of(factor), node)
            except BlockedError as reason:
                reasons.append(reason)
                continue
            if list(factor.shape or ()) == list(node.outputs[0].shape or ()):
                return tail
        raise reasons[0] if reasons else BlockedError(f"Mul '{node.name}' in its branch broadcasts")

    def _joined(self, node: gs.Node) -> Tail:
        """Pieces of one map's output side by side, as a rolled window has them."""
        first, *others = (self.of(tensor) for tensor in node.inputs)
        alike = all(
            other.axis == first.axis
            and other.maps == first.maps
            and np.array_equal(other.constant(_ones(other)), first.constant(_ones(first)))
            for other in others
        )
        rank = len(node.outputs[0].shape or ()) or DATA_ONLY
        if not alike or int(node.attrs["axis"]) % rank == first.axis:
            raise BlockedError(f"Concat '{node.name}' ends its branch")
        return first


def _start(linear_map: LinearMap) -> Tail:
    if linear_map.node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        raise BlockedError(f"its branch ends in {linear_map.node.op} '{linear_map.name}'")
    if linear_map.twins:
        raise BlockedError(f"other layers share the weights of '{linear_map.name}'")
    channels = linear_map.outputs
    return Tail(linear_map.y_axis, ((linear_map, np.ones(channels)),), np.zeros(channels))


def _ones(tail: Tail) -> dict[str, Vector]:
    return {linear_map.name: np.ones(tail.shift.size) for linear_map in tail.maps}


def _vanishing(tail: Tail, node: gs.Node) -> Tail:
    """What an operator leaves that makes zeros of zeros, and of which nothing else is known."""
    if tail.shift.any():
        raise BlockedError(f"{node.op} '{node.name}' in its branch is not linear")
    return tail.scaled(np.zeros(tail.shift.size))


def _per_channel(constant: gs.Constant, data: gs.Tensor, tail: Tail, node: gs.Node) -> Vector:
    """A constant that is the same at all positions, one value per channel of the data."""
    values = np.asarray(constant.values, np.float64)
    rank = len(data.shape or ())
    channels = tail.shift.size
    shape = (1,) * (rank - values.ndim) + values.shape
    own = shape[tail.axis] if len(shape) == rank else 0
    if own not in (1, channels) or values.size != own:
        raise BlockedError(
            f"what {node.op} '{node.name}' in its branch adds or scales has positions"
        )
    return np.broadcast_to(values.reshape(-1), (channels,)).copy()


def _moved(tail: Tail, node: gs.Node) -> Tail:
    """The tail of a tensor whose positions are moved and whose channels stay in order."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        raise BlockedError(f"the shapes at {node.op} '{node.name}' are not known")
    if node.op == "Transpose":
        order = list(node.attrs.get("perm") or range(len(x.shape))[::-1])
        return replace(tail, axis=order.index(tail.axis))
    channels = tail.shift.size
    last = tail.axis == len(x.shape) - 1 and list(y.shape[-1:]) == [channels]
    if node.op == "Reshape" and last:
        return replace(tail, axis=len(y.shape) - 1)
    if node.op == "Slice" and tail.axis not in _sliced_axes(node):
        return tail
    picked = node.attrs.get("axis", 0) % len(x.shape) if node.op == "Gather" else tail.axis
    if picked != tail.axis and len(x.shape) == len(y.shape):
        return tail
    raise BlockedError(f"{node.op} '{node.name}' in its branch takes its channels apart")


def _sliced_axes(node: gs.Node) -> set[int]:
    rank = len(node.inputs[0].shape)
    axes = node.attrs.get("axes")
    if len(node.inputs) > 3 and isinstance(node.inputs[3], gs.Constant):
        axes = node.inputs[3].values.tolist()
    return {int(axis) % rank for axis in (range(rank) if axes is None else axes)}
