"""Residual sections of a model whose BatchNorms are kept, as training with gates needs them.

They are found in the canonical form, where BatchNorm is folded into the layer before it, and known
in the model itself by the tensors that both forms have: the sum of the join, and what the branch
adds to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.canonical import canonicalise
from onnxprune.extract import read_by
from onnxprune.groups import find_groups
from onnxprune.sections import FrozenSection, find_sections

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
FLOATS = frozenset(
    {
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
    }
)
SCALING = frozenset({"Add", "BatchNormalization", "Mul", "Sub", "Sum"})
"""What may stand behind the last layers with weights that vanish with the branch."""
STATISTICS = slice(3, 5)
"""The inputs of a BatchNormalization that are statistics and no weights."""


@dataclass(frozen=True)
class GatedSection:
    """A branch behind a gate, out = skip + xi * branch.

    Attributes:
        name: the join's name.
        total: name of the tensor that the join makes.
        operand: which of the join's inputs the branch makes.
        made: name of the summand that the branch makes.
        nodes: first outputs of the nodes that nobody needs without it, in the order of the graph.
        last: names of the initializers in its last layers: weights, biases, scales.
        outermost: those of them that alone make the summand vanish: scale and shift of a
            BatchNorm that ends the branch, or else the weight and bias.
    """

    name: str
    total: str
    operand: int
    made: str
    nodes: tuple[str, ...]
    last: tuple[str, ...]
    outermost: tuple[str, ...]


@dataclass(frozen=True)
class GatedSections:
    """What was found.

    Attributes:
        found: the sections, in the order of the graph: an inner one before the one it lies in.
        frozen: the other joins of a skip and a branch, and why they get no gate.
    """

    found: tuple[GatedSection, ...]
    frozen: tuple[FrozenSection, ...]


def gated_sections(model: onnx.ModelProto) -> GatedSections:
    """The sections of a model that can be put behind gates.

    Args:
        model: its functions inlined; its graph is not changed.
    """
    canonical = canonicalise(model)
    sections = find_sections(find_groups(canonical), canonical)
    graph = _Graph(model.graph)
    found, frozen = [], list(sections.frozen)
    for section in sections.found:
        total, made = section.join.outputs[0].name, section.join.inputs[section.operand].name
        gated = graph.section(section.name, total, graph.operand(total, made))
        if gated is None:
            reason = "its join or its last layer is written in another way, which is left as it is"
            frozen.append(FrozenSection(section.name, reason))
        else:
            found.append(gated)
    return GatedSections(tuple(found), tuple(frozen))


def remaining(model: onnx.ModelProto, sections: Iterable[GatedSection]) -> list[GatedSection]:
    """The sections that cuts have left of a model, as they are in what is left."""
    graph = _Graph(model.graph)
    known = (graph.section(section.name, section.total, section.operand) for section in sections)
    return [section for section in known if section is not None]


class _Graph:
    """The graph of a model, looked at from the back."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes: Sequence[onnx.NodeProto] = list(graph.node)
        self._outputs = {value.name for value in graph.output}
        self._maker = {name: node for node in graph.node for name in node.output if name}
        self._weights = {t.name for t in graph.initializer if t.data_type in FLOATS}

    def section(self, name: str, total: str, operand: int) -> GatedSection | None:
        """The section of a sum with a branch in this place; None where there is none."""
        summands = self._summands(total)
        if len(summands) != 2 or operand < 0:
            return None
        made = summands[operand]
        nodes = tuple(self.needed_by(made, total))
        last = tuple(dict.fromkeys(self.last_weights(made, frozenset(nodes))))
        outermost = self.ends_in(made, last)
        if not outermost:
            return None
        return GatedSection(name, total, operand, made, nodes, last, outermost)

    def operand(self, total: str, made: str) -> int:
        """The place of a summand in a sum, -1 where it is none."""
        summands = self._summands(total)
        return summands.index(made) if summands.count(made) == 1 else -1

    def _summands(self, total: str) -> list[str]:
        join = self._maker.get(total)
        return list(join.input) if join is not None and join.op_type in ("Add", "Sum") else []

    def needed_by(self, made: str, total: str) -> Iterator[str]:
        """First outputs of the nodes that only serve a summand, in the order of the graph."""
        needed = self._alive()
        left = self._alive(without=(total, made))
        for node in self._nodes:
            if id(node) in needed and id(node) not in left:
                yield node.output[0]

    def _alive(self, without: tuple[str, str] = ("", "")) -> set[int]:
        """Identities of the nodes that the outputs need, if a sum is without a summand."""
        wanted, alive = set(self._outputs), set()
        for node in reversed(self._nodes):
            if wanted.isdisjoint(node.output):
                continue
            alive.add(id(node))
            read = read_by(node)
            wanted |= read - {without[1]} if without[0] in node.output else read
        return alive

    def last_weights(self, made: str, branch: frozenset[str]) -> Iterator[str]:
        """Initializers of the layers that a branch ends in, the outermost first."""
        pending, seen = [made], set()
        while pending:
            node = self._maker.get(pending.pop(0))
            if node is None or node.output[0] not in branch or node.output[0] in seen:
                continue
            seen.add(node.output[0])
            yield from self.own_weights(node)
            if node.op_type not in LINEAR:
                pending += [name for name in node.input if name in self._maker]

    def own_weights(self, node: onnx.NodeProto) -> list[str]:
        """The trainable initializers that a node reads, behind nodes that only move them too."""
        read = list(node.input) if node.op_type in LINEAR | SCALING else []
        if node.op_type == "BatchNormalization":
            del read[STATISTICS]
        found = []
        for name in read:
            maker = self._maker.get(name)
            while maker is not None and maker.op_type in ("Cast", "Identity", "Transpose"):
                name = maker.input[0]
                maker = self._maker.get(name)
            if name in self._weights:
                found.append(name)
        return found

    def ends_in(self, made: str, last: Sequence[str]) -> tuple[str, ...]:
        """The weights among the last ones that make a summand vanish when they do."""
        node = self._maker[made]
        while node.op_type not in LINEAR and node.op_type != "BatchNormalization":
            ahead = [name for name in node.input if name in self._maker]
            if len(ahead) != 1:
                return tuple(last)
            node = self._maker[ahead[0]]
        own = set(self.own_weights(node))
        place = max((i for i, name in enumerate(last) if name in own), default=-1)
        return tuple(last[: place + 1])
