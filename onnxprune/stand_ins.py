"""Operators that onnx's shape inference knows nothing of, shown to it as ones that it knows."""

from __future__ import annotations

from collections.abc import Iterator, Set

import onnx
from onnx import helper

STANDARD, MICROSOFT = "", "com.microsoft"
SHAPED_LIKE_FIRST_INPUT: dict[tuple[str, str], tuple[int, ...]] = {
    (STANDARD, "GroupNormalization"): (0,),
    (STANDARD, "LayerNormalization"): (0,),
    (STANDARD, "SimplifiedLayerNormalization"): (0,),
    (MICROSOFT, "BiasAdd"): (0,),
    (MICROSOFT, "BiasDropout"): (0,),
    (MICROSOFT, "BiasGelu"): (0,),
    (MICROSOFT, "FastGelu"): (0,),
    (MICROSOFT, "Gelu"): (0,),
    (MICROSOFT, "GroupNorm"): (0,),
    (MICROSOFT, "QuickGelu"): (0,),
    (MICROSOFT, "RotaryEmbedding"): (0,),
    (MICROSOFT, "SkipGroupNorm"): (0, 1),
    (MICROSOFT, "SkipLayerNormalization"): (0, 3),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): (0, 3),
}
"""Which outputs of an operator without inference are shaped like its first input."""
SINCE = {"LayerNormalization": 17}
"""Versions from which onnx infers a standard operator that onnxruntime had before."""
EINSUM = 12
"""First opset with Einsum."""


def with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model, for shape inference only, or the model itself if it needs none."""
    opset = opset_of(model)
    if not any(_is_unknown(node, opset) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    flat = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += _stand_ins(node, opset, flat) if _is_unknown(node, opset) else [node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _is_unknown(node: onnx.NodeProto, opset: int) -> bool:
    key = key_of(node)
    if key[0] == STANDARD and opset >= SINCE.get(key[1], opset + 1):
        return False
    return key in SHAPED_LIKE_FIRST_INPUT or key in COMPUTED


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators; 1 where the model does not say."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def key_of(node: onnx.NodeProto) -> tuple[str, str]:
    """Domain and name of an operator; the standard domain goes by two names."""
    return (STANDARD if node.domain == "ai.onnx" else node.domain), node.op_type


def _stand_ins(node: onnx.NodeProto, opset: int, flat: Set[str]) -> Iterator[onnx.NodeProto]:
    """What infers the outputs of a node; those it says nothing of stay unknown."""
    key = key_of(node)
    if key in COMPUTED:
        yield from COMPUTED[key](node, opset, flat)
        return
    for place in SHAPED_LIKE_FIRST_INPUT[key]:
        if place < len(node.output) and node.output[place]:
            yield helper.make_node("Identity", node.input[:1], [node.output[place]])


def _fused_matmul(node: onnx.NodeProto, opset: int, flat: Set[str]) -> Iterator[onnx.NodeProto]:
    """A product of matrices of which some are transposed, as Einsum says it.

    Inference knows an ellipsis as the same axes in all factors, so that matrices have none.
    """
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    terms = []
    if not any(given.get(f"trans{what}", 0) for what in ("A", "B", "BatchA", "BatchB")):
        yield helper.make_node("MatMul", node.input, node.output)
        return
    for name, side, rows, columns in zip(node.input, "AB", "ij", "jk", strict=True):
        first, last = (columns, rows) if given.get(f"trans{side}", 0) else (rows, columns)
        batch = given.get(f"transBatch{side}", 0)
        matrix = f"{first}{last}" if name in flat else f"...{first}{last}"
        terms.append(f"{first}...{last}" if batch else matrix)
    if opset >= EINSUM:
        equation = f"{','.join(terms)}->...ik"
        yield helper.make_node("Einsum", node.input, node.output, equation=equation)


def _embedding(node: onnx.NodeProto, _: int, __: Set[str]) -> Iterator[onnx.NodeProto]:
    """A row of the table of words for every token; the sum before the normalisation as well."""
    for place in (0, 2):
        if place < len(node.output) and node.output[place]:
            yield helper.make_node("Gather", [node.input[2], node.input[0]], [node.output[place]])


def _multi_head_attention(node: onnx.NodeProto, _: int, __: Set[str]) -> Iterator[onnx.NodeProto]:
    """Query times key times value, of shape (batch, length, width), without heads and softmax."""
    query, key, value = (*node.input[:3], "", "")[:3]
    if key and value:
        y = node.output[0]
        yield helper.make_node("Transpose", [key], [f"{y}/turned key"], perm=[0, 2, 1])
        yield helper.make_node("MatMul", [query, f"{y}/turned key"], [f"{y}/all scores"])
        yield helper.make_node("MatMul", [f"{y}/all scores", value], [y])


COMPUTED = {
    (MICROSOFT, "EmbedLayerNormalization"): _embedding,
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
    (MICROSOFT, "MultiHeadAttention"): _multi_head_attention,
}
"""How the shape of other operators without inference follows from their inputs."""
