"""The table of channel rules, and what a rule may say.

A rule is one function per operator. It states, through ``Facts``, which axes of the node's tensors
carry the same channels. An axis that a rule does not mention at a node is frozen there, so leaving
a case out of a rule is always safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.coupling import Coupling
from onnxprune.linear_map import Contraction, LinearMap

ONNX_DOMAINS = ("", "ai.onnx")


@dataclass
class Facts(Coupling):
    """Coupling facts, plus which maps write and read channels.

    Attributes:
        opset: version of the standard operators, by which some of them change their meaning.
    """

    opset: int = field(kw_only=True)
    producers: list[LinearMap] = field(default_factory=list)
    consumers: list[LinearMap] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)

    def produces(self, linear_map: LinearMap) -> None:
        """State that the map's rows make the channels of its output."""
        self.producers.append(linear_map)

    def consumes(self, linear_map: LinearMap) -> None:
        """State that the map mixes its input's channels, and can be refitted when some go."""
        self.consumers.append(linear_map)

    def contracts(self, contraction: Contraction) -> None:
        """State that a product of two activations sums over channels."""
        self.contractions.append(contraction)


class Kept(Protocol):
    """What a fix-up asks while the graph is cut."""

    def entries(self, tensor: gs.Tensor, axis: int) -> IndexArray:
        """The sorted indices of an axis (before the cut) that survive it."""

    def is_cut(self, tensor: gs.Tensor, axis: int) -> bool:
        """Whether the axis loses indices."""


Rule = Callable[[gs.Node, Facts], None]
Fixup = Callable[[gs.Node, Kept], None]

_RULES: dict[tuple[str, str], Rule] = {}
_FIXUPS: dict[tuple[str, str], Fixup] = {}


def rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a channel rule for these operators; a second one for the same is an error."""

    def register(function: Rule) -> Rule:
        for op in ops:
            if (domain, op) in _RULES:
                raise ValueError(f"operator {op!r} of domain {domain!r} has a rule already")
            _RULES[domain, op] = function
        return function

    return register


def fixup(*ops: str, domain: str = "") -> Callable[[Fixup], Fixup]:
    """Register what repairs attributes and shape constants of these operators after a cut."""

    def register(function: Fixup) -> Fixup:
        for op in ops:
            if (domain, op) in _FIXUPS:
                raise ValueError(f"operator {op!r} of domain {domain!r} has a fix-up already")
            _FIXUPS[domain, op] = function
        return function

    return register


def _key(node: gs.Node) -> tuple[str, str]:
    domain = node.domain or ""
    return ("" if domain in ONNX_DOMAINS else domain, node.op)


def find_rule(node: gs.Node) -> Rule | None:
    """The rule for a node, if its operator has one."""
    return _RULES.get(_key(node))


def find_fixup(node: gs.Node) -> Fixup | None:
    """The fix-up for a node, if its operator needs one."""
    return _FIXUPS.get(_key(node))


def registered() -> dict[tuple[str, str], Rule]:
    """A copy of the table of rules: (domain, operator) -> rule."""
    return dict(_RULES)
