"""What Conv, ConvTranspose, Gemm and MatMul are, once: features, weight <-> matrix, bias slot.

Recurrent layers are two such maps each: ``recurrent_map``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.errors import UnsupportedModelError


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution, one number per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Positions the window reads, per channel."""
        return int(np.prod(self.kernel))

    @property
    def padded(self) -> bool:
        """Whether some windows read zeros beyond the border."""
        return any(self.pads_begin) or any(self.pads_end)


@dataclass(frozen=True)
class FeatureSpec:
    """Which features of an activation a consumer's weight multiplies.

    Attributes:
        tensor: name of the activation.
        rank: number of axes of the activation.
        axis: its channel axis (non-negative).
        window: the patch taken at every output position; axes from 2 on are spatial and the
            channel axis is 1. Features are ordered (channel, tap), taps row-major over the kernel.
            None: every position of the other axes is one row of channel values.
        parts: into how many equal contiguous parts the channel axis is divided, with a Gram each.
        fold: for window None, positions per channel when the axis holds flattened maps
            (entry = channel * fold + position if ``fold_major`` else position * channels +
            channel) and a row is one position's channel values. 1: the axis is taken whole.
        fold_major: see ``fold``.
        apart: for window None, another axis whose every index has a Gram of its own, as heads
            have; ``parts`` is its extent.
        samples: for window None, the axis that counts samples; the first other one if it is taken.
    """

    tensor: str
    rank: int
    axis: int
    window: Window | None = None
    parts: int = 1
    fold: int = 1
    fold_major: bool = True
    apart: int | None = None
    samples: int = 0

    @property
    def row_axes(self) -> list[int]:
        """For window None, the axes over which rows are taken, that of the samples first."""
        others = [axis for axis in range(self.rank) if axis not in (self.axis, self.apart)]
        return sorted(others, key=lambda axis: axis != self.samples)


@dataclass(frozen=True)
class Contraction:
    """A product of two activations, Y[..., m, n] = sum over k of A[..., m, k] B[..., k, n].

    Channels on the axes that are summed over are read here, by no weight that could be refitted.

    Attributes:
        node: the MatMul; its inputs are A and B.
        a_axis: the axis of A that is summed over, its last.
        b_axis: that of B, its last but one.
    """

    node: gs.Node
    a_axis: int
    b_axis: int

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)


@dataclass(frozen=True)
class HeadsInARow(Contraction):
    """Scores of queries and keys whose axes hold several heads, each multiplied by itself.

    Attributes:
        heads: how many of them Q has.
        others: how many K has; one that several of Q share comes once.
    """

    heads: int
    others: int


@dataclass(frozen=True)
class LinearMap:
    """A node y = W x + b with constant W, whatever operator writes it.

    Attributes:
        node: the node; ``node.inputs[0]`` is x and ``node.outputs[0]`` is y.
        x_axis: channel axis of x.
        y_axis: channel axis of y.
        in_axis: axis of W that multiplies x's channels.
        out_axis: axis of W that makes y's channels.
        groups: parts of a grouped convolution; part p of y reads part p of x.
        window: the patch W multiplies; None for Gemm and MatMul, for a convolution whose padding
            depends on an unknown input size, and for a transposed one.
        upsampling: of a transposed convolution, positions of y per position of x (the product of
            its strides); 0 for all others.
        weight_input: which input of the node is W.
        bias_input: which one is b.
        twins: the maps of other nodes that multiply by the same W; they are refitted together.
    """

    node: gs.Node
    x_axis: int
    y_axis: int
    in_axis: int
    out_axis: int
    groups: int = 1
    window: Window | None = None
    upsampling: int = 0
    weight_input: int = 1
    bias_input: int = 2
    twins: tuple[LinearMap, ...] = ()

    @property
    def sharers(self) -> tuple[LinearMap, ...]:
        """All maps with this W, this one first."""
        return (self, *self.twins)

    @property
    def name(self) -> str:
        """The node's name, which keys problems and weights."""
        return str(self.node.name)

    @property
    def x(self) -> gs.Tensor:
        """The activation W multiplies."""
        return self.node.inputs[0]

    @property
    def y(self) -> gs.Tensor:
        """The activation W makes."""
        return self.node.outputs[0]

    @property
    def weight(self) -> gs.Constant:
        """The weight tensor W."""
        return self.node.inputs[self.weight_input]

    @property
    def bias(self) -> gs.Constant | None:
        """The bias tensor b; None where there is none, and for a MatMul, which has no slot."""
        given = self.node.inputs[self.bias_input : self.bias_input + 1]
        return given[0] if given and isinstance(given[0], gs.Constant) else None

    @property
    def taps(self) -> int:
        """Weights per (output, input) pair: the size of the kernel."""
        shape = self.weight.shape
        return int(np.prod(shape)) // int(shape[self.in_axis] * shape[self.out_axis])

    @property
    def transposed(self) -> bool:
        """Whether every position of x writes to a window of y, as in a ConvTranspose."""
        return self.upsampling > 0

    @property
    def outputs(self) -> int:
        """Channels of y that W makes, those of all parts."""
        return int(self.weight.shape[self.out_axis]) * (self.groups if self.transposed else 1)

    @property
    def inputs(self) -> int:
        """Channels of x that W reads, those of all parts."""
        return int(self.weight.shape[self.in_axis]) * (1 if self.transposed else self.groups)

    @property
    def _part_axis(self) -> int:
        """Axis of W along which its parts lie one after another; the other one they share."""
        return self.in_axis if self.transposed else self.out_axis

    def matrices(self, weight: Array | None = None) -> list[Matrix]:
        """W as one matrix per part, shape (outputs, entries * taps), float64.

        Features are ordered (entry, tap), as in FeatureSpec.
        """
        values = self.weight.values if weight is None else weight
        parts = np.split(values, self.groups, axis=self._part_axis)
        ordered = [np.moveaxis(part, (self.out_axis, self.in_axis), (0, 1)) for part in parts]
        return [part.reshape(part.shape[0], -1).astype(np.float64) for part in ordered]

    def from_matrices(self, matrices: list[Matrix]) -> Array:
        """The weight tensor, in W's layout and type, of matrices with any number of entries."""
        shape = self.weight.values.shape
        kernel = tuple(
            extent for axis, extent in enumerate(shape) if axis not in (self.in_axis, self.out_axis)
        )
        tensors = [matrix.reshape(matrix.shape[0], -1, *kernel) for matrix in matrices]
        restored = [np.moveaxis(t, (0, 1), (self.out_axis, self.in_axis)) for t in tensors]
        joined = np.concatenate(restored, axis=self._part_axis)
        return np.ascontiguousarray(joined, dtype=self.weight.values.dtype)

    def bias_vector(self) -> Vector:
        """The bias in float64, shape (outputs,); zeros where the node has none.

        Raises:
            UnsupportedModelError: it has neither one value nor one for each output.
        """
        if self.bias is None:
            return np.zeros(self.outputs)
        values = self.bias.values.reshape(-1)
        if values.size not in (1, self.outputs):
            raise UnsupportedModelError(
                f"{self.name}: a bias of {values.size} values for {self.outputs} outputs; export "
                "the model again"
            )
        return np.broadcast_to(values, (self.outputs,)).astype(np.float64)

    def with_bias(self, tensor: Array, bias: Vector) -> Array:
        """What the bias tensor holds, which may be more than this map's, with another bias."""
        return np.asarray(bias, tensor.dtype)

    def rows(self) -> Matrix:
        """The weights that make each channel of y, shape (channels, fan-in), float64."""
        return np.concatenate(self.matrices())

    def read(self, values: Array) -> list[Array]:
        """Of an array over the channels of x, what every part of the map reads."""
        return np.split(values, self.groups)

    def slice_inputs(self, weight: Array, keep: list[IndexArray]) -> Array:
        """W reading only the kept entries of x; one sorted keep per part, entries of the part."""
        return self._take(weight, keep, self.in_axis)

    def slice_outputs(self, weight: Array, keep: list[IndexArray]) -> Array:
        """W making only the kept channels of y; one sorted keep per part, channels of the part."""
        return self._take(weight, keep, self.out_axis)

    def _take(self, weight: Array, keep: list[IndexArray], axis: int) -> Array:
        parts = np.split(weight, self.groups, axis=self._part_axis)
        cut = [np.take(part, k, axis=axis) for part, k in zip(parts, keep, strict=True)]
        return np.concatenate(cut, axis=self._part_axis)

    def pad_inputs(self, weight: Array, keep: list[IndexArray]) -> Array:
        """The inverse of slice_inputs: full size, zeros for the entries that are not kept."""
        full = np.zeros(self.weight.shape, weight.dtype)
        parts = np.split(full, self.groups, axis=self._part_axis)
        cut = np.split(weight, self.groups, axis=self._part_axis)
        for part, values, entries in zip(parts, cut, keep, strict=True):
            np.moveaxis(part, self.in_axis, 0)[entries] = np.moveaxis(values, self.in_axis, 0)
        return full

    def feature_spec(self, tensor: str, rank: int) -> FeatureSpec:
        """The features W multiplies when nothing is too wide."""
        return FeatureSpec(tensor, rank, self.x_axis, self.window, self.groups)


def results(graph: gs.Graph) -> set[int]:
    """The identities of all tensors that are outputs of a graph or of a graph inside it."""
    inner = (subgraph for node in graph.nodes for subgraph in node.subgraphs(recursive=True))
    return {id(tensor) for part in (graph, *inner) for tensor in part.outputs}


def added_constant(y: gs.Tensor, seen_outside: set[int]) -> tuple[gs.Node, gs.Constant] | None:
    """The Add that alone reads a tensor, and the constant, of no other use, that it adds.

    Args:
        y: the tensor.
        seen_outside: the tensors that are results.
    """
    if len(y.outputs) != 1 or id(y) in seen_outside:
        return None
    (node,) = y.outputs
    if node.op != "Add":
        return None
    constant = node.inputs[1] if node.inputs[0] is y else node.inputs[0]
    owned = isinstance(constant, gs.Constant) and len(constant.outputs) == 1
    return (node, constant) if owned else None
