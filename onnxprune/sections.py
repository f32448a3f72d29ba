"""Residual sections: branches that a network can do without, z = x + F(x) becoming z = x.

A *join* is an Add of two activations. Its *branch* is what nobody needs once one of the two, the
sum's F, is gone: the nodes all of whose results reach the rest of the network through that
operand alone. What is left, the *skip*, is the x that the branch starts from, or what a shortcut
(a projection, a slice with padding) makes of it. Branches of two joins are disjoint, or one lies
in the other: a node of both reaches the rest through both operands, so one join feeds the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, Vector
from onnxprune.linear_map import LinearMap
from onnxprune.network import ChannelGroup
from onnxprune.tails import Tail


@dataclass(frozen=True)
class Section:
    """A branch that can be dropped.

    Attributes:
        join: the Add.
        operand: which of its inputs the branch makes; the other one is the skip.
        branch: names of the nodes that go with it, in the order of the graph.
        inputs: names of the activations that the branch reads.
        tail: what it adds, as a function of its last linear maps.
    """

    join: gs.Node
    operand: int
    branch: tuple[str, ...]
    inputs: tuple[str, ...]
    tail: Tail

    @property
    def name(self) -> str:
        """The join's name."""
        return str(self.join.name)

    @property
    def skip(self) -> gs.Tensor:
        """What is left of the sum."""
        return self.join.inputs[1 - self.operand]

    @property
    def channels(self) -> int:
        """Channels of the sum."""
        return int(self.tail.shift.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what the branch adds."""
        kind: np.dtype[Any] = self.tail.maps[0].weight.values.dtype
        return kind

    def holds(self, group: ChannelGroup) -> bool:
        """Whether a channel group goes with the section: nothing outside makes its channels."""
        return set(group.producers) <= set(self.branch)

    def replacements(self, means: Mapping[str, Vector]) -> dict[str, tuple[Array, Array]]:
        """Weights at which the full-size network computes what it does without the section.

        Args:
            means: names of last maps -> mean output, shape (outputs,), which the branch's bias
                becomes; without one, what the branch adds is zero where it can be.

        Returns:
            Name of every last map -> (zeros, bias).
        """
        return {
            m.name: (
                np.zeros_like(m.weight.values),
                self._bias(m, scale, means).astype(m.weight.values.dtype),
            )
            for m, scale in self.tail.parts
        }

    def _bias(self, linear_map: LinearMap, scale: Vector, means: Mapping[str, Vector]) -> Vector:
        if linear_map.name in means:
            return np.where(scale != 0, means[linear_map.name], 0.0)
        if linear_map is not self.tail.parts[0][0]:
            return np.zeros(scale.size)
        shift = self.tail.shift
        return -np.divide(shift, scale, out=np.zeros_like(shift), where=scale != 0)

    def constant(self, replaced: Mapping[str, tuple[Array, Array]]) -> Vector:
        """What the branch adds with these replacements, shape (channels,)."""
        biases = {name: np.asarray(bias, np.float64) for name, (_, bias) in replaced.items()}
        return self.tail.constant(biases)


@dataclass(frozen=True)
class FrozenSection:
    """A join whose branch cannot be dropped, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Sections:
    """What was found.

    Attributes:
        found: the sections, in the order of the graph: an inner one before the one it lies in.
        frozen: the other joins of a skip and a branch.
    """

    found: tuple[Section, ...]
    frozen: tuple[FrozenSection, ...]


def dropped_groups(sections: Iterable[Section], groups: Iterable[ChannelGroup]) -> set[str]:
    """Names of the groups that go with these sections."""
    gone = tuple(sections)
    return {group.name for group in groups if any(section.holds(group) for section in gone)}
