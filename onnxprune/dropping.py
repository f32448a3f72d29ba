"""Takes residual sections out of a graph whose channels are cut already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray
from onnxprune.errors import PlanMismatchError
from onnxprune.names import fresh
from onnxprune.section_search import seen_outside
from onnxprune.sections import Section


class Kept(Protocol):
    """What is asked while sections are taken out."""

    def entries(self, tensor: gs.Tensor, axis: int) -> IndexArray:
        """The sorted indices of an axis (before the cut) that survive it."""


def chosen_sections(
    sections: Iterable[Section], names: Sequence[str], constants: Mapping[str, Array]
) -> list[Section]:
    """The sections of these names, in the order of the graph.

    Raises:
        PlanMismatchError: there is no such section, it is named twice, or a constant belongs to
            none of them or has another number of channels.
    """
    known = {section.name: section for section in sections}
    for name, times in Counter(names).items():
        if name not in known:
            raise PlanMismatchError(f"the plan drops section '{name}', which the model lacks")
        if times > 1:
            raise PlanMismatchError(f"the plan drops section '{name}' twice; drop it once")
    for name, constant in constants.items():
        if name not in names:
            raise PlanMismatchError(
                f"the weights hold a constant for section '{name}', which the plan does not drop"
            )
        if constant.shape != (known[name].channels,):
            raise PlanMismatchError(
                f"the constant of section '{name}' has shape {list(constant.shape)}, the model "
                f"needs [{known[name].channels}]"
            )
    return [section for section in known.values() if section.name in names]


def drop(
    graph: gs.Graph, sections: Sequence[Section], constants: Mapping[str, Array], cut: Kept
) -> None:
    """Take sections out; their nodes are left to a cleanup.

    Args:
        graph: the graph, its channels cut.
        sections: what goes.
        constants: name of a section -> what is added in its place, shape (channels,) as before
            the cut. Without one, the join goes as well.
        cut: which channels survive.
    """
    outside = seen_outside(graph)
    for section in sections:
        if section.name in constants:
            join, operand = section.join, section.operand
            join.inputs[operand] = _constant(graph, section, constants[section.name], cut)
        elif id(section.join.outputs[0]) in outside:
            section.join.op = "Identity"
            section.join.inputs = [section.skip]
        else:
            _bypass(section)


def _bypass(section: Section) -> None:
    """Let the readers of a sum read its skip."""
    skip, total = section.skip, section.join.outputs[0]
    for reader in list(total.outputs):
        reader.inputs = [skip if tensor is total else tensor for tensor in reader.inputs]
    section.join.inputs.clear()
    section.join.outputs.clear()


def _constant(graph: gs.Graph, section: Section, values: Array, cut: Kept) -> gs.Constant:
    """What the join adds in place of its branch, along its channel axis."""
    total, axis = section.join.outputs[0], section.tail.axis
    kept = np.asarray(values, section.dtype)[cut.entries(total, axis)]
    trailing = len(total.shape) - 1 - axis
    name = fresh(f"{section.name}.constant", set(graph.tensors()))
    return gs.Constant(name, kept.reshape(-1, *[1] * trailing))
