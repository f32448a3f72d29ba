"""Channel shuffles as one Gather: Reshape, Transpose, Reshape that only permute one axis.

A shuffle splits an axis, exchanges its pieces and puts them together again. Followed factor by
factor, what a chain of such nodes does to every axis is known even where other extents are not.
As a Gather any of its channels can be cut; as a Reshape only equal numbers of every piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.names import fresh
from onnxprune.shape_values import Extent, Symbol, elements_of, symbol

INFERRED = -1
"""Stands for the one extent of a new shape that follows from the others."""


@dataclass(frozen=True)
class Factor:
    """A part of an axis of the first tensor: index = ... + coordinate * stride + ..."""

    axis: int
    stride: int
    extent: Symbol


Axes = list[list[Factor]]
"""The axes of a tensor, each as the factors its index consists of, the slowest first."""


def gather_shuffles(graph: gs.Graph) -> None:
    """Replace every chain that permutes the indices of one axis by a Gather; graph is sorted."""
    outputs = {id(tensor) for tensor in graph.outputs}
    names = set(graph.tensors())
    for node in list(graph.nodes):
        if not node.outputs:
            continue  # part of a chain that is replaced already
        found = _longest_shuffle(node, outputs)
        if found is None:
            continue
        last, axis, indices = found
        y = last.outputs[0]
        last.inputs.clear()
        last.outputs.clear()
        constant = gs.Constant(fresh(f"{y.name}/indices", names), indices)
        gather = gs.Node("Gather", last.name, {"axis": axis}, [node.inputs[0], constant], [y])
        graph.nodes.insert(graph.nodes.index(last), gather)
        graph.nodes.remove(last)
    graph.cleanup()


def _longest_shuffle(first: gs.Node, outputs: set[int]) -> tuple[gs.Node, int, IndexArray] | None:
    """The last node of the chain from this one that permutes an axis, the axis and its indices."""
    if first.op not in ("Reshape", "Transpose") or first.inputs[0].shape is None:
        return None
    x = first.inputs[0]
    before: Axes = []
    for axis in range(len(x.shape)):
        extent = symbol(x, axis)
        before.append([] if extent == 1 else [Factor(axis, 1, extent)])
    axes = before
    found = None
    for node in _chain(first, outputs):
        after = _after(node, axes)
        if after is None:
            break
        axes = after
        permuted = _permutation(axes)
        if permuted is not None and len(axes) == len(x.shape):
            found = (node, *permuted)
    return found


def _chain(node: gs.Node, outputs: set[int]) -> Iterator[gs.Node]:
    """This node and those after it, as long as nobody else sees what is between them."""
    while node.op in ("Reshape", "Transpose"):
        yield node
        y = node.outputs[0]
        if id(y) in outputs or len(y.outputs) != 1 or y.outputs[0].inputs[0] is not y:
            return
        node = y.outputs[0]


def _after(node: gs.Node, axes: Axes) -> Axes | None:
    """The factors behind a node; None where they are not known."""
    if node.op == "Transpose":
        perm = node.attrs.get("perm", range(len(axes) - 1, -1, -1))
        return [axes[axis] for axis in perm]
    target = _target(node, axes)
    if target is None or target.count(INFERRED) > 1:
        return None
    factors = [factor for axis in axes for factor in axis]
    gap = target.index(INFERRED) if INFERRED in target else len(target)
    left = [_take(extent, factors) for extent in target[:gap]]
    right = [_take(extent, factors, at_end=True) for extent in target[:gap:-1]]
    inferred = [factors] if gap < len(target) else []
    regrouped = [axis for axis in (*left, *inferred, *right[::-1]) if axis is not None]
    complete = len(regrouped) == len(target) and (inferred or not factors)
    return regrouped if complete else None


def _target(node: gs.Node, axes: Axes) -> list[Symbol] | None:
    """The new shape of a Reshape, an extent to be inferred as -1; None where it is not known."""
    elements = elements_of(node.inputs[1])
    if elements is None or node.attrs.get("allowzero", 0):
        return None
    target: list[Symbol] = []
    for axis, element in enumerate(elements):
        if isinstance(element, Extent):
            target.append(symbol(element.tensor, element.axis))
        elif element == 0 and axis < len(axes):
            target.append(_extent(axes[axis]))
        else:
            target.append(INFERRED if element is None else element)
    return target


def _extent(axis: list[Factor]) -> Symbol:
    """The extent of an axis; -1 where several factors make it and one of them is no number."""
    if len(axis) == 1:
        return axis[0].extent
    extents = [factor.extent for factor in axis if isinstance(factor.extent, int)]
    return math.prod(extents) if len(extents) == len(axis) else INFERRED


def _take(extent: Symbol, factors: list[Factor], *, at_end: bool = False) -> list[Factor] | None:
    """Take the factors of an axis off one end of the list, splitting the last of them."""
    end = -1 if at_end else 0
    taken: list[Factor] = []
    if not isinstance(extent, int):
        return [factors.pop(end)] if factors and factors[end].extent == extent else None
    while extent != 1:
        factor = factors.pop(end) if factors else None
        if factor is None or not isinstance(factor.extent, int) or min(extent, factor.extent) < 1:
            return None
        size = math.gcd(extent, factor.extent)
        if size not in (extent, factor.extent):
            return None
        rest = factor.extent // size
        inner, outer = (size, rest) if at_end else (rest, size)
        pieces = [
            Factor(factor.axis, factor.stride * inner, outer),
            Factor(factor.axis, factor.stride, inner),
        ]
        taken.append(pieces[end])
        if rest > 1:
            factors.insert(len(factors) if at_end else 0, pieces[-1 - end])
        extent //= size
    return taken[::-1] if at_end else taken


def _permutation(axes: Axes) -> tuple[int, IndexArray] | None:
    """The axis whose indices are permuted and how, if all others are as they were."""
    permuted = []
    for place, factors in enumerate(axes):
        if any(factor.axis != place for factor in factors):
            return None
        strides = [factor.stride for factor in factors]
        if strides != sorted(strides, reverse=True):
            permuted.append(place)
    if len(permuted) != 1:
        return None
    indices = np.zeros(1, np.int64)
    for factor in axes[permuted[0]]:
        if isinstance(factor.extent, int):  # as those of an axis that was split are
            steps = np.arange(factor.extent) * factor.stride
            indices = (indices[:, None] + steps).reshape(-1)
    return permuted[0], indices
