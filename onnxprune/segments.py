"""A model cut into consecutive segments that hand their live tensors on.

A *cut* is a place between two nodes in execution order; the *frontier* at a cut holds the tensors
that are computed before it and wanted behind it. Running a model segment by segment computes every
node once, however many cuts there are, and any graph can be cut anywhere: skip connections only
make the frontier wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import AttributeProto, helper

from onnxprune.arrays import Array
from onnxprune.extract import read_by

_NO_TENSORS = {"Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase"}
_NO_TENSORS |= {"SequenceInsert", "SequenceMap", "SplitToSequence"}
"""Operators that make sequences and optionals."""


@dataclass(frozen=True)
class Segment:
    """The nodes between two cuts that compute what is wanted behind the second.

    Attributes:
        nodes: in execution order.
        inputs: tensors of the frontier before it that the nodes read.
        outputs: tensors of the frontier behind it that the nodes compute.
        initializers: names of the constants the nodes read.
        passed: tensors that are on both frontiers.
    """

    nodes: tuple[onnx.NodeProto, ...] = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    initializers: frozenset[str]
    passed: frozenset[str]


class Segments:
    """A model's segments between cuts, each of which has tensors that are wanted there.

    Args:
        model: sorted as ONNX demands; it is not changed.
        cuts: for each cut the number of nodes before it, ascending.
        wanted: for each cut the tensors wanted there besides what is needed later on; all are
            computed before it.
    """

    def __init__(
        self, model: onnx.ModelProto, cuts: Sequence[int], wanted: Sequence[set[str]]
    ) -> None:
        self._model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values = {
            value.name: value
            for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        }
        made = {name for node in model.graph.node for name in node.output if name}
        self._outside = made | self._weights.keys() | {v.name for v in model.graph.input}
        needed: set[str] = set()
        found = []
        for number in range(len(cuts) - 1, -1, -1):
            needed |= wanted[number]
            start = cuts[number - 1] if number else 0
            segment = self._segment(model.graph.node[start : cuts[number]], needed)
            needed = set(segment.passed) | set(segment.inputs)
            found.append(segment)
        self.all = tuple(reversed(found))
        self.inputs = tuple(sorted(needed))

    def part(self, segment: Segment, nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> Segment:
        """What some of a segment's nodes need to compute some of its outputs.

        Its inputs are of the frontier before the segment, or made by the segment's other nodes.
        """
        return replace(self._segment(nodes, outputs), passed=segment.passed)

    def _segment(self, nodes: Sequence[onnx.NodeProto], needed: set[str]) -> Segment:
        """The part of these nodes that computes what is needed behind them."""
        made_here = {name for node in nodes for name in node.output}
        outputs, passed = needed & made_here, needed - made_here
        kept: list[onnx.NodeProto] = []
        open_names, constants = set(outputs), set()
        for node in reversed(nodes):
            if not open_names.isdisjoint(node.output):
                kept.append(node)
                open_names -= set(node.output)
                read = read_by(node) & self._outside
                constants |= read & self._weights.keys()
                open_names |= read - self._weights.keys()
        inputs = tuple(sorted(open_names))
        return Segment(
            tuple(reversed(kept)),
            inputs,
            tuple(sorted(outputs)),
            frozenset(constants),
            frozenset(passed),
        )

    def model(
        self, segment: Segment, frontier: Mapping[str, Array], values: Mapping[str, Array]
    ) -> onnx.ModelProto:
        """A segment as a model of its own.

        Args:
            segment: one of ``all``.
            frontier: an example of every input.
            values: initializers that hold something else here.
        """
        model = onnx.ModelProto(
            ir_version=self._model.ir_version,
            opset_import=self._model.opset_import,
            functions=self._model.functions,
        )
        graph = model.graph
        graph.name = self._model.graph.name
        graph.node.extend(segment.nodes)
        graph.initializer.extend(
            self._weight(name, values.get(name)) for name in sorted(segment.initializers)
        )
        graph.sparse_initializer.extend(self._model.graph.sparse_initializer)
        graph.input.extend(self._typed(name, frontier[name]) for name in segment.inputs)
        if model.ir_version < 4:  # every initializer is a graph input as well
            graph.input.extend(
                helper.make_tensor_value_info(w.name, w.data_type, w.dims)
                for w in graph.initializer
            )
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in segment.outputs)
        return model

    def _weight(self, name: str, changed: Array | None) -> onnx.TensorProto:
        """An initializer; what it holds instead takes its type."""
        own = self._weights[name]
        if changed is None:
            return own
        dtype = helper.tensor_dtype_to_np_dtype(own.data_type)
        return onnx.numpy_helper.from_array(changed.astype(dtype, copy=False), name)

    def _typed(self, name: str, array: Array) -> onnx.ValueInfoProto:
        """The type of an example, with the extents that are recorded and that it confirms.

        onnxruntime refuses an input that contradicts its shape, and shapes that are recorded
        inside of a model need not be right.
        """
        known = self._values.get(name)
        dims = [] if known is None else list(known.type.tensor_type.shape.dim)
        extents: list[int | None] = [None] * array.ndim
        if len(dims) == array.ndim:
            pairs = zip(dims, array.shape, strict=True)
            extents = [extent if dim.dim_value == extent else None for dim, extent in pairs]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, kind, extents)


def forbidden_cuts(model: onnx.ModelProto) -> set[int]:
    """Where a model cannot be cut: where a sequence or an optional would have to wait.

    Returns:
        Numbers of nodes before such places.
    """
    opaque: dict[str, int] = {}
    forbidden: set[int] = set()
    for place, node in enumerate(model.graph.node):
        for name in read_by(node) & opaque.keys():
            forbidden.update(range(opaque[name] + 1, place + 1))
        opaque |= dict.fromkeys(_no_tensors(node, opaque), place)
    return forbidden


def _no_tensors(node: onnx.NodeProto, opaque: Mapping[str, int]) -> Iterator[str]:
    """The outputs of a node that are sequences or optionals."""
    if node.op_type in _NO_TENSORS or (node.op_type == "Identity" and node.input[0] in opaque):
        yield from node.output
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            # the first results of a Loop's body and of a Scan's are not (all) the node's own
            last = attribute.g.output[len(attribute.g.output) - len(node.output) :]
            for name, inner in zip(node.output, last, strict=False):
                if not inner.type.HasField("tensor_type") and inner.type.WhichOneof("value"):
                    yield name
