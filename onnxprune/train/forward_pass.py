"""Which nodes of a graph are computed for some of its tensors, and how one of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.errors import OnnxPruneError, UnsupportedModelError
from onnxprune.train.graph import Graph
from onnxprune.train.operators import Node, Operator
from onnxprune.train.roles import known_operator

JOINS = ("Add", "Sum")
"""Operators that pass the others on when one of their operands is absent."""


@dataclass(frozen=True)
class Step:
    """A node to be computed.

    Attributes:
        node: the node.
        operator: how it is computed.
        inputs: names of what it reads; of a join, those operands that are present.
        last: names of the tensors that nobody needs after it.
    """

    node: Node
    operator: Operator
    inputs: tuple[str, ...]
    last: tuple[str, ...]

    @property
    def is_alone(self) -> bool:
        """Whether it is a join of which one operand is left, which it passes on."""
        several = len(self.node.inputs) > 1
        return several and len(self.inputs) == 1 and self.node.op in JOINS

    def run(self, inputs: Sequence[Tensor | None]) -> object:
        """What the operator makes.

        Raises:
            OnnxPruneError: the node cannot be computed on these inputs.
        """
        try:
            return self.operator.function(self.node, *inputs)
        except UnsupportedModelError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join("-" if x is None else str(list(x.shape)) for x in inputs)
            raise OnnxPruneError(
                f"{self.node.op} '{self.node.name}' cannot be computed on inputs of shapes "
                f"{shapes}: {error}"
            ) from error

    def together(self, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The inputs on one device, but for those that are read as numbers.

        These stay with the CPU: shapes and what is computed from them stay there, until they meet
        something else.
        """
        numbers, cpu = self.operator.values, torch.device("cpu")
        read = [x for place, x in enumerate(inputs) if x is not None and place not in numbers]
        home = next((x.device for x in read if x.device.type != "cpu"), cpu)
        return [
            x if x is None else x.to(cpu if place in numbers else home)
            for place, x in enumerate(inputs)
        ]


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass through a graph, or a part of it.

    Attributes:
        steps: the nodes, in the graph's order.
        inputs: names of the graph's inputs that are needed.
        constants: names of the constants that are.
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    constants: tuple[str, ...]


def forward_pass(graph: Graph, targets: tuple[str, ...], absent: frozenset[str]) -> ForwardPass:
    """The nodes that some tensors need.

    Args:
        graph: the graph.
        targets: names of the tensors that are wanted.
        absent: names of tensors that are not computed, nor what only they need.

    Raises:
        ValueError: a wanted tensor is absent, or something other than a sum needs an absent one.
    """
    if absent & set(targets):
        raise ValueError(f"'{min(absent & set(targets))}' is wanted and absent")
    needed, later = set(targets), set(targets)
    steps = []
    for node in reversed(graph.nodes):
        if not needed & (set(node.outputs) - absent):
            continue
        inputs = node.inputs
        if absent & set(inputs):
            inputs = tuple(name for name in inputs if name not in absent)
            if node.op not in JOINS or not inputs:
                lacking = min(absent & set(node.inputs))
                raise ValueError(f"{node.op} '{node.name}' cannot do without '{lacking}'")
        read = {name for name in (*inputs, *node.outputs) if name}
        steps.append(Step(node, known_operator(node), inputs, tuple(read - later)))
        later |= read
        needed |= set(inputs)
    return ForwardPass(
        tuple(reversed(steps)),
        tuple(name for name in graph.inputs if name in needed),
        tuple(name for name in graph.constants if name in needed),
    )
