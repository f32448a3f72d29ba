"""Residual sections of a model whose BatchNorms are kept, as training with gates needs them.

They are found in the canonical form, where BatchNorm is folded into the layer before it, and known
in the model itself by the tensors that both forms have: the sum of the join, and what the branch
adds to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
import onnx.inliner

from onnxprune.canonical import canonicalise
from onnxprune.extract import read_by
from onnxprune.groups import find_groups
from onnxprune.section_search import find_sections
from onnxprune.sections import FrozenSection


@dataclass(frozen=True)
class GatedSection:
    """A branch behind a gate, out = skip + xi * branch.

    Attributes:
        name: the join's name.
        total: name of the tensor that the join makes.
        operand: which of the join's inputs the branch makes.
        made: name of the summand that the branch makes.
        nodes: first outputs of the nodes that nobody needs without it, in the order of the graph.
    """

    name: str
    total: str
    operand: int
    made: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class GatedSections:
    """What was found.

    Attributes:
        found: the sections, in the order of the graph: an inner one before the one it lies in.
        frozen: the other joins of a skip and a branch, and why they get no gate.
    """

    found: tuple[GatedSection, ...]
    frozen: tuple[FrozenSection, ...]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with its functions inlined; the model itself if there are none."""
    if not model.functions:
        return model
    result: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    return result


def gated_sections(model: onnx.ModelProto) -> GatedSections:
    """The sections of a model that can be put behind gates.

    Args:
        model: its functions inlined; its graph is not changed.
    """
    canonical = canonicalise(model)
    sections = find_sections(find_groups(canonical), canonical)
    wiring = Wiring.of(model)
    found, frozen = [], list(sections.frozen)
    for section in sections.found:
        total, made = section.join.outputs[0].name, section.join.inputs[section.operand].name
        gated = wiring.section(section.name, total, wiring.operand(total, made))
        if gated is None:
            reason = "its join is written in another way, which is left as it is"
            frozen.append(FrozenSection(section.name, reason))
        else:
            found.append(gated)
    return GatedSections(tuple(found), tuple(frozen))


def remaining(wiring: Wiring, sections: Iterable[GatedSection]) -> list[GatedSection]:
    """The sections that cuts have left of a graph, as they are in what is left."""
    known = (wiring.section(section.name, section.total, section.operand) for section in sections)
    return [section for section in known if section is not None]


@dataclass(frozen=True)
class Link:
    """A node as far as it matters here.

    Attributes:
        op: the operator.
        inputs: what it reads, in order.
        outputs: what it makes.
        captured: what graphs inside it read besides.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: frozenset[str] = frozenset()


class Wiring:
    """Which node reads what another makes.

    Args:
        links: the nodes in order.
        outputs: names of the graph's outputs.
    """

    def __init__(self, links: Iterable[Link], outputs: Iterable[str]) -> None:
        self._links = tuple(links)
        self._outputs = frozenset(outputs)
        self._maker = {name: link for link in self._links for name in link.outputs if name}

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Wiring:
        """That of a model."""
        links = (
            Link(node.op_type, tuple(node.input), tuple(node.output), frozenset(read_by(node)))
            for node in model.graph.node
        )
        return cls(links, (value.name for value in model.graph.output))

    def section(self, name: str, total: str, operand: int) -> GatedSection | None:
        """The section of a sum with a branch in this place; None where there is none."""
        summands = self._summands(total)
        if len(summands) != 2 or operand < 0:
            return None
        made = summands[operand]
        return GatedSection(name, total, operand, made, tuple(self._needed_by(made, total)))

    def operand(self, total: str, made: str) -> int:
        """The place of a summand in a sum, -1 where it is none."""
        summands = self._summands(total)
        return summands.index(made) if summands.count(made) == 1 else -1

    def _summands(self, total: str) -> tuple[str, ...]:
        join = self._maker.get(total)
        return join.inputs if join is not None and join.op in ("Add", "Sum") else ()

    def _needed_by(self, made: str, total: str) -> Iterator[str]:
        """First outputs of the nodes that only serve a summand, in the order of the graph."""
        needed = self._alive()
        left = self._alive(without=(total, made))
        for place, link in enumerate(self._links):
            if place in needed and place not in left:
                yield link.outputs[0]

    def _alive(self, without: tuple[str, str] = ("", "")) -> set[int]:
        """Places of the nodes that the outputs need, if a sum is without a summand."""
        wanted, alive = set(self._outputs), set()
        for place in reversed(range(len(self._links))):
            link = self._links[place]
            if wanted.isdisjoint(link.outputs):
                continue
            alive.add(place)
            read = {*link.inputs, *link.captured}
            wanted |= read - {without[1]} if without[0] in link.outputs else read
        return alive
