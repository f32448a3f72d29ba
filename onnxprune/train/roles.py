"""Which constants of a graph are trained.

A constant is trained for the place at which it is read, through whatever else is computed from
constants alone (a transposition, a normalisation of weights). Constants that shift or scale what
no layer has touched yet belong to the preparation of the input, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from onnxprune.train.graph import Graph
from onnxprune.train.operators import Node, Operator, find_operator

MEASURES = ("Shape", "Size")
"""Operators that say how large a tensor is; their results are in the memory of the CPU."""
LARGEST_SHIFT = 1e4
"""Numbers beyond which a constant that is added hides things, as masks of attention do."""

Test = Callable[[Tensor], bool]


def _any(value: Tensor) -> bool:
    return True


def _is_scale(value: Tensor) -> bool:
    return sum(extent > 1 for extent in value.shape) == 1


def _is_shift(value: Tensor) -> bool:
    return value.numel() > 1 and bool((value.abs() < LARGEST_SHIFT).all())


def _is_learnt(value: Tensor) -> bool:
    return bool((value != 0).any()) and bool(torch.isfinite(value).all())


def _through(test: Test) -> Test:
    """A test of what is read behind a computation, in which single numbers are no weights."""
    return lambda value: test(value) and _is_shift(value)


def trained(graph: Graph) -> list[str]:
    """Names of the constants to train, in the graph's order of reading."""
    expressions = constant_expressions(graph)
    touched = _touched(graph, expressions)
    asked: dict[str, list[Test]] = {}
    for node in reversed(graph.nodes):
        operator = known_operator(node)
        if set(node.outputs) & expressions:
            tests = [test for name in node.outputs for test in asked.get(name, ())]
            for place, name in enumerate(node.inputs):
                if name and place not in operator.values:
                    asked.setdefault(name, []).extend(_through(test) for test in tests)
            continue
        for place, test in _asking(node, operator, touched):
            asked.setdefault(node.inputs[place], []).append(test)
    statistics = set(running_statistics(graph))
    found: dict[str, None] = {}
    for node in graph.nodes:
        for name in node.inputs:
            value = graph.constants.get(name)
            if value is None or name not in asked or name in statistics:
                continue
            own = name in graph.own or name in graph.untied
            if own and value.is_floating_point() and any(test(value) for test in asked[name]):
                found[name] = None
    return list(found)


def running_statistics(graph: Graph) -> Iterator[str]:
    """Names of the constants that are running means and variances."""
    for node in graph.nodes:
        for place in known_operator(node).statistics:
            if place < len(node.inputs) and node.inputs[place] in graph.constants:
                yield node.inputs[place]


def constant_expressions(graph: Graph) -> set[str]:
    """Names of the tensors that are computed from constants; shapes and axes do not count."""
    found: set[str] = set()
    for node in graph.nodes:
        values = known_operator(node).values
        read = [name for place, name in enumerate(node.inputs) if name and place not in values]
        if read and all(name in found or name in graph.constants for name in read):
            found |= set(node.outputs) - {""}
    return found


def shape_constants(graph: Graph) -> set[str]:
    """Names of the constants that only the arithmetic of shapes reads, which the CPU does."""
    beside: set[str] = set()
    uses: dict[str, list[bool]] = {}
    for node in graph.nodes:
        if node.op in MEASURES:
            beside |= set(node.outputs)
            continue
        values = known_operator(node).values
        read = [name for place, name in enumerate(node.inputs) if name and place not in values]
        known = all(name in beside or name in graph.constants for name in read)
        arithmetic = known and (not read or any(name in beside for name in read))
        if arithmetic:
            beside |= set(node.outputs)
        for name in read:
            uses.setdefault(name, []).append(arithmetic)
    return {name for name in graph.constants if name in uses and all(uses[name])}


def known_operator(node: Node) -> Operator:
    """The operator of a node of a graph, in which all are known."""
    operator = find_operator(node.domain, node.op)
    assert operator is not None
    return operator


def _touched(graph: Graph, expressions: set[str]) -> set[str]:
    """Names of the tensors that depend on a weight."""
    found: set[str] = set()
    for node in graph.nodes:
        operator = known_operator(node)
        weighted = any(
            place in operator.weights and (name in graph.constants or name in expressions)
            for place, name in enumerate(node.inputs)
        )
        if weighted or found & set(node.inputs):
            found |= set(node.outputs)
    return found


def _asking(node: Node, operator: Operator, touched: set[str]) -> Iterator[tuple[int, Test]]:
    """The places at which a node reads weights, and what makes a constant there one."""
    behind = bool(touched & set(node.inputs))
    for place in range(len(node.inputs)):
        if place in operator.weights:
            yield place, _any
        elif place in operator.scales and behind:
            yield place, _is_scale
        elif place in operator.shifts and behind:
            yield place, _is_shift
        elif place in operator.learnt and behind:
            yield place, _is_learnt
