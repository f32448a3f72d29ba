"""Attention in one node: heads, and the places inside them, are cut as where it is spelt out.

A flat axis of heads * width entries is divided into both. The heads of queries, keys, values and
results go together; so do the places of queries and keys, which are multiplied with each other,
and those of values and results.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.linear_map import Contraction, HeadsInARow
from onnxprune.rules.contrib import MICROSOFT
from onnxprune.rules.registry import Facts, Kept, fixup, rule

FLAT, APART = 3, 4
"""Axes of (batch, length, heads * width) and of (batch, heads, length, width)."""


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: gs.Node, facts: Facts) -> None:
    """Heads go together in Q, K, V and Y; places in them in Q and K, and in V and Y."""
    heads = int(node.attrs["num_heads"])
    if _keeps_a_cache(node, facts, 6) or not _are_flat(node, heads, heads):
        return
    bias, _, scores = _inputs(node, 6)[3:]
    if bias is not None:
        return  # one that is not constant; others have been taken out
    slots = facts.slots(heads)
    _divide(node, facts, slots, slots)
    _couple_scores(node, facts, scores, slots)


@fixup("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention_heads(node: gs.Node, kept: Kept) -> None:
    """The number of heads; the scale stays what the width was before."""
    heads = int(node.attrs["num_heads"])
    _spell_out_scale(node, kept, heads)
    node.attrs["num_heads"] = _surviving_heads(node, kept, 0, heads)


@rule("Attention")
def attention(node: gs.Node, facts: Facts) -> None:
    """As MultiHeadAttention; several heads of Q may share one of K and V, and go with it."""
    if _keeps_a_cache(node, facts, 4):
        return
    mask = _inputs(node, 4)[3]
    ranks = {None if t.shape is None else len(t.shape) for t in (*node.inputs[:3], node.outputs[0])}
    if ranks == {FLAT}:
        many, few = (int(node.attrs.get(key, 0)) for key in ("q_num_heads", "kv_num_heads"))
        if many and few and many % few == 0 and _are_flat(node, many, few):
            slots = facts.slots(few)
            _divide(node, facts, np.repeat(slots, many // few), slots)
            _couple_scores(node, facts, mask, np.repeat(slots, many // few))
    elif ranks == {APART}:
        slots = _couple_apart(node, facts)
        _couple_scores(node, facts, mask, slots)


@fixup("Attention")
def attention_heads(node: gs.Node, kept: Kept) -> None:
    """The numbers of heads, where they are given; the scale stays what the width was before."""
    query = node.inputs[0]
    if query.shape is None:
        return
    flat = len(query.shape) == FLAT
    _spell_out_scale(node, kept, node.attrs["q_num_heads"] if flat else 1)
    if flat:
        for key, place in (("q_num_heads", 0), ("kv_num_heads", 1)):
            node.attrs[key] = _surviving_heads(node, kept, place, node.attrs[key])


@rule("RotaryEmbedding")
def rotary_embedding(node: gs.Node, facts: Facts) -> None:
    """Heads pass through; the places in a head are turned in pairs, and stay."""
    _rotate(node, facts, node.inputs[1])


@rule("RotaryEmbedding", domain=MICROSOFT)
def contrib_rotary_embedding(node: gs.Node, facts: Facts) -> None:
    """Heads pass through; the places in a head are turned in pairs, and stay."""
    _rotate(node, facts, node.inputs[2])


@fixup("RotaryEmbedding")
@fixup("RotaryEmbedding", domain=MICROSOFT)
def rotary_heads(node: gs.Node, kept: Kept) -> None:
    """The number of heads, where it is given."""
    if node.attrs.get("num_heads", 0):
        node.attrs["num_heads"] = _surviving_heads(node, kept, 0, node.attrs["num_heads"])


def _rotate(node: gs.Node, facts: Facts, cosines: gs.Tensor) -> None:
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        return
    turned = f"{node.op} '{node.name}' turns the places in a head in pairs"
    if len(x.shape) == APART:
        if 1 in facts.live(x):
            facts.couple(facts.axis(x, 1), facts.axis(y, 1))
        if 3 in facts.live(x):
            facts.freeze(facts.axis(x, 3), turned)
        return
    heads = int(node.attrs.get("num_heads", 0))
    if not heads and isinstance(cosines.shape[-1], int) and isinstance(x.shape[-1], int):
        heads = int(x.shape[-1]) // (2 * int(cosines.shape[-1]))
    cells = facts.axis(x, 2)
    if not heads or not cells.size or cells.size % heads:
        facts.freeze(cells, turned)
        return
    slots, places = facts.slots(heads), facts.slots(cells.size // heads)
    facts.freeze(places, turned)
    for tensor in (x, y):
        _divide_axis(facts, facts.axis(tensor, 2), slots, places)


def _inputs(node: gs.Node, count: int) -> list[gs.Tensor | None]:
    """The first inputs of a node, None for those it lacks."""
    given = [None if tensor.is_empty() else tensor for tensor in node.inputs[:count]]
    return given + [None] * (count - len(given))


def _keeps_a_cache(node: gs.Node, facts: Facts, past: int) -> bool:
    """Whether keys and values go in and out of a node, which fixes their shape; then all freezes.

    So it is with the scores, where they are an output.
    """
    more = [t for t in (*node.inputs[past:], *node.outputs[1:]) if not t.is_empty()]
    if not more:
        return False
    names = ", ".join(f"'{tensor.name}'" for tensor in more)
    for tensor in (*node.inputs[:past], node.outputs[0]):
        for axis in facts.live(tensor):
            facts.freeze(facts.axis(tensor, axis), f"{node.op} '{node.name}' has {names}")
    return True


def _are_flat(node: gs.Node, many: int, few: int) -> bool:
    """Whether Q, K, V and Y have flat axes that are known and divided by their heads."""
    tensors = (*node.inputs[:3], *node.outputs[:1])
    if len(node.inputs) < 3 or any(t.shape is None or len(t.shape) != FLAT for t in tensors):
        return False
    widths = [tensor.shape[2] for tensor in tensors]
    return all(
        isinstance(width, int) and width % heads == 0
        for width, heads in zip(widths, (many, few, few, many), strict=True)
    )


def _divide(node: gs.Node, facts: Facts, many: IndexArray, few: IndexArray) -> None:
    """State how the flat axes of Q, K, V and Y are divided, by the slots of their heads."""
    query, key, value = node.inputs[:3]
    places = facts.slots(query.shape[2] // many.size)
    inner = facts.slots(value.shape[2] // few.size)
    _divide_axis(facts, facts.axis(query, 2), many, places)
    _divide_axis(facts, facts.axis(key, 2), few, places)
    _divide_axis(facts, facts.axis(value, 2), few, inner)
    _divide_axis(facts, facts.axis(node.outputs[0], 2), many, inner)
    facts.contracts(HeadsInARow(node, 2, 2, many.size, few.size))


def _divide_axis(facts: Facts, cells: IndexArray, heads: IndexArray, places: IndexArray) -> None:
    facts.factor(cells, np.repeat(heads, places.size), np.tile(places, heads.size))


def _couple_apart(node: gs.Node, facts: Facts) -> IndexArray:
    """State what goes together where heads are an axis of their own; return those of Q."""
    query, key, value = node.inputs[:3]
    y = node.outputs[0]
    many, few = facts.axis(query, 1), facts.axis(key, 1)
    shared = np.repeat(few, many.size // few.size) if few.size else few
    facts.couple(many, shared)
    facts.couple(few, facts.axis(value, 1))
    facts.couple(many, facts.axis(y, 1))
    facts.couple(facts.axis(query, 3), facts.axis(key, 3))
    facts.couple(facts.axis(value, 3), facts.axis(y, 3))
    facts.contracts(Contraction(node, 3, 3))
    return many


def _couple_scores(
    node: gs.Node, facts: Facts, scores: gs.Tensor | None, heads: IndexArray
) -> None:
    """What is added to the scores has an entry for every head, or one for all of them."""
    if scores is None:
        return
    if scores.shape is None:
        facts.freeze(heads, f"the shape of '{scores.name}' at '{node.name}' is not known")
        return
    axis = len(scores.shape) - 3
    if axis >= 0 and scores.shape[axis] != 1:
        facts.couple(facts.axis(scores, axis), heads)


def _surviving_heads(node: gs.Node, kept: Kept, place: int, heads: int) -> int:
    """How many heads of a flat input survive."""
    tensor: gs.Tensor = node.inputs[place]
    if tensor.shape is None or len(tensor.shape) != FLAT or not kept.is_cut(tensor, 2):
        return heads
    return int(np.unique(kept.entries(tensor, 2) // (tensor.shape[2] // heads)).size)


def _spell_out_scale(node: gs.Node, kept: Kept, heads: int) -> None:
    """Write down the scale that the width of Q's last axis implies (0 stands for that as well)."""
    query = node.inputs[0]
    last = len(query.shape or ()) - 1
    if last > 0 and kept.is_cut(query, last) and not node.attrs.get("scale", 0.0):
        node.attrs["scale"] = 1.0 / math.sqrt(query.shape[last] // heads)
