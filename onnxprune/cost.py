"""Parameters, MACs and channels as multilinear functions of the groups' kept counts.

A section that can be dropped has a count as well, behind those of the groups: 1, or 0 if it is
gone. The terms of all that goes with it are multiplied by it, those of a section inside another
by both. What two sections share, and nobody else needs, is counted as if it stayed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.concrete import concrete
from onnxprune.counts import AxisCounter, Count, Product, expand
from onnxprune.groups import find_groups
from onnxprune.mac_terms import LINEAR_OPS, MacTerms
from onnxprune.network import Network
from onnxprune.sections import Section

BFLOAT16_BYTES = 2


@dataclass(frozen=True)
class Multilinear:
    """sum_t prod_f (constant_tf + slopes_tf @ counts).

    Attributes:
        constants: shape (terms, factors).
        slopes: shape (terms, factors, groups + sections).
    """

    constants: Matrix
    slopes: Vector

    def __call__(self, counts: Array) -> Vector:
        """The cost at kept counts of shape (..., groups + sections), shape (...)."""
        counts = np.asarray(counts, np.float64)
        changes = counts @ self.slopes.reshape(self.constants.size, counts.shape[-1]).T
        factors = self.constants + changes.reshape(*counts.shape[:-1], *self.constants.shape)
        total: Vector = factors.prod(axis=-1).sum(axis=-1)
        return total

    def scaled(self, factor: float) -> Multilinear:
        """The cost times a factor."""
        first = np.ones_like(self.constants)
        first[:, :1] = factor
        return Multilinear(self.constants * first, self.slopes * first[..., None])

    def restricted(self, groups: IndexArray) -> Multilinear:
        """The cost as a function of the counts of some groups; no other changes it."""
        return Multilinear(self.constants, self.slopes[..., groups])

    @classmethod
    def of(cls, terms: Sequence[Product], groups: int) -> Multilinear:
        """Collect terms of so many groups, sections included."""
        changing = [[factor for factor in term if factor.slopes.any()] for term in terms]
        width = max(1, *map(len, changing)) if terms else 0
        constants = np.ones((len(terms), width))
        slopes = np.zeros((len(terms), width, groups))
        for row, (term, factors) in enumerate(zip(terms, changing, strict=True)):
            for column, factor in enumerate(factors):
                constants[row, column] = factor.constant
                slopes[row, column] = factor.slopes
            fixed = math.prod(factor.constant for factor in term if not factor.slopes.any())
            constants[row, 0] *= fixed
            slopes[row, 0] *= fixed
        return cls(constants, slopes)


@dataclass(frozen=True)
class CostModel:
    """What a network costs as a function of its groups' kept counts.

    Attributes:
        macs: multiply-accumulates of all LINEAR_OPS for one sample.
        params: elements of floating-point constants.
        bytes: bytes of all constants.
        node_macs: name of a node -> MACs it takes in the unpruned network.
        shrinking: names of the nodes that take fewer when groups are cut.
        uncounted: names of the nodes whose output positions are not known; their weights count as
            if each were used once.
    """

    macs: Multilinear
    params: Multilinear
    bytes: Multilinear
    node_macs: Mapping[str, float]
    shrinking: frozenset[str] = frozenset()
    uncounted: tuple[str, ...] = ()

    def per_sample(self, batch: int) -> CostModel:
        """The costs of a model that is fixed to a batch size, MACs for one of its samples."""
        node_macs = {name: count / batch for name, count in self.node_macs.items()}
        return replace(self, macs=self.macs.scaled(1 / batch), node_macs=node_macs)


def cost_model(
    network: Network,
    model: onnx.ModelProto,
    input_shapes: Mapping[str, tuple[int | None, ...]],
    sections: Sequence[Section] = (),
) -> CostModel:
    """The costs of a network for inputs of these shapes.

    Args:
        network: the groups of the model.
        model: the canonical model itself.
        input_shapes: a shape for each graph input, with a batch of one sample; None for an extent
            that is not known.
        sections: what may be dropped; their counts follow those of the groups in this order.
    """
    shapes = tensor_shapes(concrete(model, input_shapes))
    counter = AxisCounter(network)
    sizes = counter.sizes
    linear = [node for node in network.graph.nodes if node.op in LINEAR_OPS]
    mac_terms = MacTerms(network, shapes, counter)
    gates = Gates(sections, sizes.size)
    macs = {node.name: gates.around(mac_terms.of(node), [node]) for node in linear}
    constants = [t for t in network.graph.tensors().values() if isinstance(t, gs.Constant)]
    params: list[Product] = []
    stored: list[Product] = []
    for tensor in constants:
        extents = [counter.count(tensor, axis) for axis in range(len(tensor.shape))]
        params += gates.around(expand(extents), tensor.outputs) if is_parameter(tensor) else []
        stored += gates.around(
            expand([counter.fixed(_item_bytes(tensor)), *extents]), tensor.outputs
        )
    full = np.append(sizes, np.ones(len(sections)))
    return CostModel(
        Multilinear.of([product for products in macs.values() for product in products], full.size),
        Multilinear.of(params, full.size),
        Multilinear.of(stored, full.size),
        {name: float(Multilinear.of(products, full.size)(full)) for name, products in macs.items()},
        frozenset(
            name
            for name, products in macs.items()
            if any(factor.slopes[: sizes.size].any() for product in products for factor in product)
        ),
        tuple(node.name for node in linear if node.outputs[0].name not in shapes),
    )


class Gates:
    """Multiplies terms by the counts of the sections that they go with.

    Args:
        sections: the sections.
        groups: how many counts stand before theirs.
    """

    def __init__(self, sections: Sequence[Section], groups: int) -> None:
        self.count = len(sections)
        self._branches = [frozenset(section.branch) for section in sections]
        self._groups = groups

    def of(self, nodes: Sequence[gs.Node]) -> IndexArray:
        """Places among all counts of the sections without which none of these nodes is needed."""
        names = [node.name for node in nodes]
        found = [i for i, b in enumerate(self._branches) if names and b.issuperset(names)]
        return self._groups + np.array(found, np.int64)

    def around(self, products: Sequence[Product], nodes: Sequence[gs.Node]) -> list[Product]:
        """The terms of what is needed as long as one of these nodes is."""
        return [self.behind(product, self.of(nodes)) for product in products]

    def behind(self, product: Product, places: IndexArray) -> Product:
        """A term times the counts at these places."""
        every = np.eye(self._groups + self.count)
        widened = (Count(c.constant, np.append(c.slopes, np.zeros(self.count))) for c in product)
        return (*widened, *(Count(0.0, every[place]) for place in places))


def counted_macs(
    model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int | None, ...]]
) -> float:
    """Multiply-accumulates of a model as it is, pruned or not, for inputs of these shapes."""
    return sum(cost_model(find_groups(model), model, input_shapes).node_macs.values())


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
    if isinstance(kind, int):  # of a type that NumPy lacks
        return kind == onnx.TensorProto.BFLOAT16
    return bool(np.issubdtype(np.dtype(kind), np.floating))


def _item_bytes(tensor: gs.Constant) -> int:
    """Bytes of one element of a constant."""
    return BFLOAT16_BYTES if isinstance(tensor.dtype, int) else np.dtype(tensor.dtype).itemsize


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
