"""The table of operators, and what a function in it is given.

A function computes one node: it takes the node and its inputs, None for those that are left out,
and returns its first output, or a tuple of them. Half-precision tensors of a model are float32
here, and unsigned integers over 8 bits the next wider signed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = Tensor | tuple[Tensor | None, ...]
Function = Callable[..., Result]
F = TypeVar("F", bound=Function)


@dataclass
class Mode:
    """What the network is doing, for the operators that do something else in training.

    Attributes:
        training: whether Dropout drops and BatchNormalization uses the batch's statistics.
        frozen_statistics: whether BatchNormalization keeps to its running statistics in training.
        updating: whether the running statistics follow those of the batch.
    """

    training: bool = False
    frozen_statistics: bool = False
    updating: bool = True


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        name: unique in the network.
        op: the operator.
        domain: its domain; empty for the standard one.
        inputs: names of the tensors it reads; empty where one is left out.
        outputs: names of the tensors it makes; empty where one is left out.
        attributes: name -> value; tensors as torch has them.
        opset: version of the standard operators.
        mode: shared by all nodes of a network.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    mode: Mode

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def makes(self, place: int) -> bool:
        """Whether an output is asked for."""
        return place < len(self.outputs) and bool(self.outputs[place])


@dataclass(frozen=True)
class Operator:
    """How an operator is computed.

    Attributes:
        function: computes a node.
        values: places of inputs that are read as numbers (shapes, axes, bounds of slices); they
            stay in the memory of the CPU.
        weights: places at which a constant of floats is a weight and is trained.
        scales: places at which it is one if it holds a number for each entry of one axis.
        shifts: places at which it is one if it has more than one element and hides nothing, as the
            large numbers of a mask do.
        learnt: places at which it is one if it is not zero everywhere.
        statistics: places of running statistics, which training updates.
    """

    function: Function
    values: Collection[int] = ()
    weights: Collection[int] = ()
    scales: Collection[int] = ()
    shifts: Collection[int] = ()
    learnt: Collection[int] = ()
    statistics: Collection[int] = ()


Limit = Callable[[Node], str | None]

EVERY = range(1 << 16)
"""All places of an operator that takes any number of inputs."""

_OPERATORS: dict[tuple[str, str], Operator] = {}
_LIMITS: dict[tuple[str, str], Limit] = {}


def operator(
    *ops: str,
    domain: str = "",
    **places: Collection[int],
) -> Callable[[F], F]:
    """Register the function of these operators; a second one for the same is an error.

    Args:
        ops: their names.
        domain: their domain.
        places: what is said of their inputs, see ``Operator``.
    """

    def register(function: F) -> F:
        for op in ops:
            if (domain, op) in _OPERATORS:
                raise ValueError(f"operator {op!r} of domain {domain!r} has a function already")
            _OPERATORS[domain, op] = Operator(function, **places)
        return function

    return register


def limit(*ops: str, domain: str = "") -> Callable[[Limit], Limit]:
    """Register what says why a node of these operators cannot be computed; None if it can."""

    def register(function: Limit) -> Limit:
        for op in ops:
            _LIMITS[domain, op] = function
        return function

    return register


def limit_of(node: Node) -> str | None:
    """Why a node of a known operator cannot be computed; None if it can."""
    check = _LIMITS.get((node.domain, node.op))
    return None if check is None else check(node)


def find_operator(domain: str, op: str) -> Operator | None:
    """How an operator is computed, if it is known."""
    return _OPERATORS.get((domain, op))


def known() -> frozenset[tuple[str, str]]:
    """Domain and name of every operator in the table."""
    return frozenset(_OPERATORS)


def numbers(tensor: Tensor) -> list[Any]:
    """The elements of a tensor that is read as numbers."""
    listed: list[Any] = tensor.reshape(-1).tolist()
    return listed


def axes_of(node: Node, given: Tensor | None) -> list[int] | None:
    """Axes that newer operators take as an input and older ones as an attribute."""
    if given is not None:
        return [int(axis) for axis in numbers(given)]
    axes = node.get("axes", None)
    return None if axes is None else [int(axis) for axis in axes]


def index_of(entries: list[int], like: Tensor) -> Tensor:
    """Indices on the device of a tensor."""
    return torch.tensor(entries, dtype=torch.int64, device=like.device)
