"""Operators that rearrange axes without touching values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.coupling import MOST_CHANNELS
from onnxprune.rules.registry import Facts, Kept, fixup, rule
from onnxprune.shape_values import elements_of
from onnxprune.shape_writing import element, write_element

Block = tuple[list[int], list[int]]


@rule("Transpose")
def transpose(node: gs.Node, facts: Facts) -> None:
    """Axis perm[i] of X is axis i of Y."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None:
        return
    perm = list(node.attrs.get("perm", range(len(x.shape) - 1, -1, -1)))
    for axis in facts.live(x):
        facts.couple(facts.axis(x, axis), facts.axis(y, perm.index(axis)))


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def regroup(node: gs.Node, facts: Facts) -> None:
    """Axes are divided into factors and merged from them; each factor is cut by itself.

    In row-major order X and Y number the same elements. The coarsest division that both have in
    common, as (heads, width) of the axes [heads * width] and [heads, width], tells which index
    lies on which.
    """
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        return
    live = set(facts.live(x))
    blocks = match_axes(list(x.shape), list(y.shape))
    _outermost_left(node, blocks, live, facts)
    for sources, targets in blocks:
        if not live & set(sources) or not _can_be_corrected(node, targets):
            continue
        left, right = [x.shape[a] for a in sources], [y.shape[a] for a in targets]
        if left == right:
            for source, target in zip(sources, targets, strict=True):
                if source in live:
                    facts.couple(facts.axis(x, source), facts.axis(y, target))
        elif set(left) == {1}:
            facts.couple(facts.axis(x, sources[0]), facts.axis(y, targets[-1]))
        else:
            division = common_division(left, right)
            if division is not None and max(*left, *right) <= MOST_CHANNELS:
                _Regrouping(facts, division, x, sources, y, targets).state()


def _can_be_corrected(node: gs.Node, targets: list[int]) -> bool:
    """Whether the new shape holds these extents as numbers; a computed one may not."""
    if node.op != "Reshape":
        return True
    return all(isinstance(element(node.inputs[1], axis), int) for axis in targets)


def _outermost_left(node: gs.Node, blocks: list[Block], live: set[int], facts: Facts) -> None:
    """Couple the first axes that no block accounts for, where one extent divides the other.

    Of (C, H, W) reshaped to (G, rest) with unknown H and W, group g still is channels g * C / G
    and on. They go together, since what is in one group cannot be told further.
    """
    x, y = node.inputs[0], node.outputs[0]
    left = [a for a in range(len(x.shape)) if not any(a in sources for sources, _ in blocks)]
    right = [a for a in range(len(y.shape)) if not any(a in targets for _, targets in blocks)]
    if not left or not right or left[0] not in live or not _can_be_corrected(node, right[:1]):
        return
    extents = x.shape[left[0]], y.shape[right[0]]
    if not all(isinstance(extent, int) and 0 < extent <= MOST_CHANNELS for extent in extents):
        return
    if max(extents) % min(extents):
        return
    few, many = sorted((facts.axis(x, left[0]), facts.axis(y, right[0])), key=len)
    facts.couple(many, np.repeat(few, many.size // few.size))


@dataclass(frozen=True)
class Division:
    """A common division of two lists of extents with equal products.

    Attributes:
        sizes: the factors, outermost first.
        left: for every extent on the left, which factors it is the product of; none if it is 1.
        right: the same on the right.
    """

    sizes: list[int]
    left: list[list[int]]
    right: list[list[int]]


def common_division(left: Sequence[int], right: Sequence[int]) -> Division | None:
    """The coarsest division that refines both; None where they cross, as 2 * 3 and 3 * 2 do."""
    steps = [np.cumprod([1, *extents[::-1]]).tolist() for extents in (left, right)]
    inner_first = sorted({*steps[0], *steps[1]})
    if any(outer % inner for inner, outer in pairwise(inner_first)):
        return None
    outer_first = inner_first[::-1]
    sizes = [outer // inner for outer, inner in pairwise(outer_first)]
    spans = [
        [
            list(range(outer_first.index(outer), outer_first.index(inner)))
            for outer, inner in pairwise(step[::-1])
        ]
        for step in steps
    ]
    return Division(sizes, *spans)


class _Regrouping:
    """The facts of one block of axes that a Reshape divides and merges."""

    def __init__(
        self,
        facts: Facts,
        division: Division,
        x: gs.Tensor,
        sources: list[int],
        y: gs.Tensor,
        targets: list[int],
    ) -> None:
        self._facts = facts
        self._sizes = division.sizes
        live = set(facts.live(x))
        self._from = [(x, a, f) for a, f in zip(sources, division.left, strict=True) if a in live]
        carried = {factor for _, _, factors in self._from for factor in factors}
        self._to = [
            (y, axis, factors)
            for axis, factors in zip(targets, division.right, strict=True)
            if carried & set(factors)
        ]
        self._slots: dict[int, IndexArray] = {}
        for factor in sorted(carried):
            alone = [(t, a) for t, a, f in (*self._from, *self._to) if f == [factor]]
            self._slots[factor] = (
                facts.axis(*alone[0]) if alone else facts.slots(self._sizes[factor])
            )

    def state(self) -> None:
        """State which factors every index needs; an axis of one index has none, and stays."""
        for tensor, axis, factors in (*self._from, *self._to):
            cells = self._facts.axis(tensor, axis)
            if not factors:
                self._facts.freeze(cells, f"'{tensor.name}' has one channel on axis {axis}")
                continue
            grid = np.indices([self._sizes[factor] for factor in factors])
            needed = [
                self._slots[factor][place.reshape(-1)]
                for factor, place in zip(factors, grid, strict=True)
                if factor in self._slots
            ]
            self._facts.factor(cells, *needed)


@fixup("Reshape")
def reshape_shape(node: gs.Node, kept: Kept) -> None:
    """A spelt-out extent becomes what survives; 0 (copied) and -1 (inferred) stay."""
    y = node.outputs[0]
    for axis, extent in enumerate(elements_of(node.inputs[1]) or []):
        if isinstance(extent, int) and extent > 0 and kept.is_cut(y, axis):
            write_element(node.inputs[1], axis, int(kept.entries(y, axis).size))


def match_axes(source: list[Any], target: list[Any]) -> list[Block]:
    """Blocks of axes with equal products, as far as extents are known.

    Matched from the right as far as possible, then the rest from the left: one extent nobody
    knows in between does no harm. Equal names stand for equal extents, None for an unknown one.

    Returns pairs (source axes, target axes), each sorted. An axis in no block is not accounted
    for.
    """
    blocks = _match_from_right(source, target)
    i = min((block[0][0] for block in blocks), default=len(source))
    j = min((block[1][0] for block in blocks), default=len(target))
    mirrored = _match_from_right(source[:i][::-1], target[:j][::-1])
    turned = [
        (sorted(i - 1 - axis for axis in left), sorted(j - 1 - axis for axis in right))
        for left, right in mirrored
    ]
    return blocks + turned


def _match_from_right(source: list[Any], target: list[Any]) -> list[Block]:
    blocks: list[Block] = []
    i, j = len(source), len(target)
    while i > 0 and j > 0 and source[i - 1] is not None and target[j - 1] is not None:
        left, right = [i - 1], [j - 1]
        a, b = source[i - 1], target[j - 1]
        while a != b:
            if not isinstance(a, int) or not isinstance(b, int):
                return blocks
            axes, extents = (left, source) if a < b else (right, target)
            position = axes[-1] - 1
            if position < 0 or not isinstance(extents[position], int):
                return blocks
            axes.append(position)
            if a < b:
                a *= source[position]
            else:
                b *= target[position]
        i, j = left[-1], right[-1]
        blocks.append((left[::-1], right[::-1]))
    return blocks
