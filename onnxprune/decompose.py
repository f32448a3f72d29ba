"""Operators written as the ones they stand for, where a rule for them would not be enough.

Taken apart are operators with weights, which the numerics do not know (FusedGemm, FusedMatMul);
operators that onnxruntime writes into its optimised files as standard ones and that the checker of
onnx, which a pruned model must pass, refuses (SimplifiedLayerNormalization, LayerNormalization
before opset 17); and picking by a constant mask, which is a Gather. onnxruntime fuses them again
when it loads the model. Two operators get spelt out what they leave implied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper

from onnxprune.attention import biased_attention, packed_attention
from onnxprune.stand_ins import MICROSOFT, STANDARD, key_of, opset_of
from onnxprune.workbench import Bench, attributes

Nodes = Iterator[onnx.NodeProto]

LAYER_NORMALIZATION, RMS_NORMALIZATION = 17, 23
"""First opsets with these operators in the standard."""
AXES_ARE_AN_INPUT = 18
"""First opset in which the axes of a ReduceMean are an input, not an attribute."""
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""The activations of a FusedGemm and the attributes each of them needs."""
MOMENT_AXES = [0, 2, 3]
"""What a MeanVarianceNormalization averages over unless it says so."""


def fused_gemm(node: onnx.NodeProto, bench: Bench) -> Nodes:
    """Gemm and its activation."""
    given = attributes(node)
    activation = given.get("activation", b"").decode()
    needed = ACTIVATIONS.get(activation)
    if needed is None or any(f"activation_{key}" not in given for key in needed):
        return
    y = node.output[0]
    inner = bench.name(f"{y}/gemm")
    gemm = helper.make_node("Gemm", node.input, [inner])
    gemm.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    yield gemm
    parameters = {key: given[f"activation_{key}"] for key in needed}
    yield helper.make_node(activation, [inner], [y], **parameters)


def fused_matmul(node: onnx.NodeProto, bench: Bench) -> Nodes:
    """MatMul, behind Transposes and before a scale factor; constants take both themselves."""
    y, factor = node.output[0], attributes(node).get("alpha", 1.0)
    turns = [_turned(node, side, bench.rank(x)) for side, x in zip("AB", node.input, strict=True)]
    if None in turns:
        return
    factors = []
    for name, turn in zip(node.input, turns, strict=True):
        values = bench.values(name)
        if values is not None and (turn or factor != 1.0):
            scaled = np.asarray(values * factor, values.dtype)
            factors.append(bench.constant(name, scaled.transpose(turn) if turn else scaled))
            factor = 1.0
        elif turn:
            factors.append(bench.name(f"{name}/transposed"))
            yield helper.make_node("Transpose", [name], factors[-1:], perm=turn)
        else:
            factors.append(name)
    product = y if factor == 1.0 else bench.name(f"{y}/product")
    yield helper.make_node("MatMul", factors, [product])
    if factor != 1.0:
        scale = bench.scalar(f"{y}/alpha", factor, node.input[0])
        yield helper.make_node("Mul", [product, scale], [y])


def _turned(node: onnx.NodeProto, side: str, rank: int | None) -> list[int] | None:
    """How the axes of A or B are permuted: not at all ([]), or as far as nobody knows (None)."""
    given = attributes(node)
    turn, batch = given.get(f"trans{side}", 0), given.get(f"transBatch{side}", 0)
    if not turn and not batch:
        return []
    if rank is None or rank < 2:
        return None
    perm = list(range(rank))
    if batch:  # the first axis comes last but one
        perm = [*perm[1:-1], 0, rank - 1]
    return [*perm[:-2], perm[-1], perm[-2]] if turn else perm


def layer_normalization(node: onnx.NodeProto, bench: Bench) -> Nodes:
    """Centred (but in the simplified form), divided by its deviation, scaled and shifted.

    In the order of operations that onnxruntime knows as one. Half precision stays as it is: the
    squares would overflow.
    """
    x, y = node.input[0], node.output[0]
    simple = node.op_type.startswith("Simplified")
    axes = _normalised_axes(node, bench)
    first = LAYER_NORMALIZATION if not simple else RMS_NORMALIZATION
    known = bench.types.get(x, bench.types.get(node.input[1])) in FLOATS
    if axes is None or not known or sum(map(bool, node.output)) > 1:
        return
    if bench.opset >= first:
        if simple:
            rms = helper.make_node("RMSNormalization", node.input, [y])
            rms.attribute.extend(node.attribute)
            yield rms
        return
    if not simple:
        mean, centred = bench.name(f"{y}/mean"), bench.name(f"{y}/centred")
        yield _mean(x, mean, axes, bench)
        yield helper.make_node("Sub", [x, mean], [centred])
        x = centred
    steps = ("squared", "variance", "shifted", "deviation", "normalised")
    names = {step: bench.name(f"{y}/{step}") for step in steps}
    two = bench.scalar(f"{y}/two", 2.0, node.input[1])
    epsilon = bench.scalar(f"{y}/epsilon", attributes(node).get("epsilon", 1e-5), node.input[1])
    yield helper.make_node("Pow", [x, two], [names["squared"]])
    yield _mean(names["squared"], names["variance"], axes, bench)
    yield helper.make_node("Add", [names["variance"], epsilon], [names["shifted"]])
    yield helper.make_node("Sqrt", [names["shifted"]], [names["deviation"]])
    yield helper.make_node("Div", [x, names["deviation"]], [names["normalised"]])
    bias = node.input[2] if len(node.input) > 2 else ""
    scaled = bench.name(f"{y}/scaled") if bias else y
    yield helper.make_node("Mul", [names["normalised"], node.input[1]], [scaled])
    if bias:
        yield helper.make_node("Add", [scaled, bias], [y])


def _normalised_axes(node: onnx.NodeProto, bench: Bench) -> list[int] | None:
    """From the given one to the last, counted from the end; None where that takes the rank."""
    first = attributes(node).get("axis", -1)
    if first >= 0:
        rank = bench.rank(node.input[0])
        if rank is None:
            return None
        first -= rank
    return list(range(first, 0))


def _mean(x: str, y: str, axes: list[int], bench: Bench) -> onnx.NodeProto:
    if bench.opset < AXES_ARE_AN_INPUT:
        return helper.make_node("ReduceMean", [x], [y], axes=axes)
    given = bench.constant(f"{y}/axes", np.array(axes, np.int64))
    return helper.make_node("ReduceMean", [x, given], [y])


def compress(node: onnx.NodeProto, bench: Bench) -> Nodes:
    """Picking by a constant mask is picking by constant indices."""
    mask, axis = bench.values(node.input[1]), attributes(node).get("axis")
    if mask is not None and axis is not None:
        indices = bench.constant(f"{node.output[0]}/indices", np.flatnonzero(mask))
        yield helper.make_node("Gather", [node.input[0], indices], node.output, axis=axis)


def mean_variance_normalization(node: onnx.NodeProto, _: Bench) -> Nodes:
    """The same with its axes spelt out, as the checker of onnx wrongly refuses the default."""
    if not node.attribute:
        yield helper.make_node(node.op_type, node.input, node.output, axes=MOMENT_AXES)


def deformable_convolution(node: onnx.NodeProto, bench: Bench) -> Nodes:
    """The same with a bias, which recovery may have to write."""
    weight = bench.values(node.input[1])
    if weight is None or (len(node.input) > 3 and node.input[3]):
        return
    zeros = bench.constant(f"{node.output[0]}/bias", np.zeros(weight.shape[0], weight.dtype))
    biased = helper.make_node(node.op_type, [*node.input[:3], zeros, *node.input[4:]], node.output)
    biased.attribute.extend(node.attribute)
    yield biased


def image_scaler(node: onnx.NodeProto, bench: Bench) -> Nodes:
    """A factor for all and a summand for each channel; an experiment that ONNX gave up."""
    x, y, given = node.input[0], node.output[0], attributes(node)
    bias = np.array(given["bias"], np.float32).reshape(-1, 1, 1)
    scaled = bench.name(f"{y}/scaled")
    yield helper.make_node("Mul", [x, bench.scalar(f"{y}/scale", given["scale"], x)], [scaled])
    yield helper.make_node("Add", [scaled, bench.constant(f"{y}/bias", bias)], [y])


PARTS: dict[tuple[str, str], Callable[[onnx.NodeProto, Bench], Nodes]] = {
    (MICROSOFT, "Attention"): packed_attention,
    (MICROSOFT, "FusedGemm"): fused_gemm,
    (MICROSOFT, "FusedMatMul"): fused_matmul,
    (MICROSOFT, "MultiHeadAttention"): biased_attention,
    (STANDARD, "Compress"): compress,
    (STANDARD, "DeformConv"): deformable_convolution,
    (STANDARD, "ImageScaler"): image_scaler,
    (STANDARD, "LayerNormalization"): layer_normalization,
    (STANDARD, "MeanVarianceNormalization"): mean_variance_normalization,
    (STANDARD, "SimplifiedLayerNormalization"): layer_normalization,
}
"""The nodes that an operator stands for; none where it has to stay as it is."""


def take_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without these operators, or the model itself if it has none."""
    opset = opset_of(model)
    if not any(_is_wanted(node, opset) for node in model.graph.node):
        return model
    bench = Bench.of(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        parts = list(PARTS[key_of(node)](node, bench)) if _is_wanted(node, opset) else []
        for place, part in enumerate(parts):
            if node.name:
                part.name = f"{node.name}/{part.op_type}_{place}" if len(parts) > 1 else node.name
        nodes += parts or [node]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(bench.made)
    return copy


def _is_wanted(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node may have to be taken apart; LayerNormalization only before it was standard."""
    fine = node.op_type == "LayerNormalization" and opset >= LAYER_NORMALIZATION
    return not fine and key_of(node) in PARTS
