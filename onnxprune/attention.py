"""The weights and biases of onnxruntime's attention operators, taken out of them.

Attention holds the weights that make queries, keys and values; the numerics know them as a MatMul.
MultiHeadAttention, which is left, takes the same masks. It may hold their biases, which are added
before it here, so that what it multiplies is what the graph shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from onnxprune.explicit import LISTS_ARE_INPUTS
from onnxprune.stand_ins import MICROSOFT
from onnxprune.workbench import Bench, attributes

MASKS = (1, 2, 3)
"""Axes of the masks that both operators take: lengths, what is no padding, and pairs of tokens."""
SAME = ("mask_filter_value", "num_heads", "scale", "unidirectional")
OTHERS = ("do_rotary", "past_present_share_buffer")


def packed_attention(node: onnx.NodeProto, bench: Bench) -> Iterator[onnx.NodeProto]:
    """MatMul, Add, Split and MultiHeadAttention; none with a cache, or masks it does not take."""
    x, weights, bias, mask, past, scores, length = (*node.input, *[""] * 7)[:7]
    given = attributes(node)
    shape = bench.shapes.get(weights)
    cached = past or length or any(node.output[1:]) or any(given.get(key, 0) for key in OTHERS)
    if cached or weights not in bench.constants or shape is None or len(shape) != 2:
        return
    if mask and bench.rank(mask) not in MASKS:
        return
    y = node.output[0]
    sizes = list(given.get("qkv_hidden_sizes") or [(shape[1] or 0) // 3] * 3)
    projected = bench.name(f"{y}/projected")
    yield helper.make_node("MatMul", [x, weights], [projected])
    if bias:
        product, projected = projected, bench.name(f"{y}/shifted")
        yield helper.make_node("Add", [product, bias], [projected])
    parts = [bench.name(f"{y}/{part}") for part in ("query", "key", "value")]
    yield _split(projected, parts, sizes, bench)
    attend = helper.make_node(
        "MultiHeadAttention", _trimmed([*parts, "", mask, scores]), [y], domain=MICROSOFT
    )
    attend.attribute.extend(a for a in node.attribute if a.name in SAME)
    yield attend


def _split(x: str, parts: list[str], sizes: list[int], bench: Bench) -> onnx.NodeProto:
    if bench.opset < LISTS_ARE_INPUTS:
        return helper.make_node("Split", [x], parts, axis=2, split=sizes)
    given = bench.constant(f"{x}/sizes", np.array(sizes, np.int64))
    return helper.make_node("Split", [x, given], parts, axis=2)


def _trimmed(names: list[str]) -> list[str]:
    """Without the empty names at the end."""
    while not names[-1]:
        names = names[:-1]
    return names


def biased_attention(node: onnx.NodeProto, bench: Bench) -> Iterator[onnx.NodeProto]:
    """Adds and a MultiHeadAttention without biases; none where their sizes are not known."""
    parts, bias = list(node.input[:3]), (*node.input, *[""] * 4)[3]
    values = bench.values(bias) if bias else None
    widths = [(bench.shapes.get(part) or [None])[-1] for part in parts]
    if values is None or values.ndim != 1 or not all(parts) or None in widths[:2]:
        return
    pieces = np.split(values, np.cumsum([width or 0 for width in widths[:2]]))
    for place, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        given = bench.constant(f"{bias}/{place}", piece)
        parts[place] = bench.name(f"{part}/shifted")
        yield helper.make_node("Add", [part, given], [parts[place]])
    attend = helper.make_node(
        node.op_type, _trimmed([*parts, "", *node.input[4:]]), node.output, domain=MICROSOFT
    )
    attend.attribute.extend(node.attribute)
    yield attend
