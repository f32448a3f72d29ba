"""The canonical form: one way of writing what exporters write in many.

Functions inlined, fused convolutions taken apart, constants and shape arithmetic folded,
BatchNormalization folded into the linear map before it, every node named, every small constant
owned by one reader, Gemm without scale factors, paddings, the sizes of a Split and the biases of
recurrent layers explicit. The canonical model computes the same function, and every later stage
starts from it.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter, defaultdict

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array
from onnxprune.decompose import take_apart
from onnxprune.einsums import plain_einsums
from onnxprune.errors import UnsupportedModelError
from onnxprune.explicit import explicit_pads, explicit_split
from onnxprune.folding import fold_constants
from onnxprune.fused import split_fused
from onnxprune.model import export_graph, is_large
from onnxprune.names import fresh
from onnxprune.recurrent_form import explicit_recurrent
from onnxprune.recurrent_map import RECURRENT_OPS
from onnxprune.scatters import plain_scatters
from onnxprune.shape_writing import spell_out_sizes
from onnxprune.shuffles import gather_shuffles
from onnxprune.stand_ins import opset_of
from onnxprune.unpacking import unpack

logger = logging.getLogger(__name__)

QUANTIZED_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
OLDEST_OPSET = 7
"""Below, elementwise operators broadcast in another way; onnxruntime starts here as well."""
SHARED_CONSTANT_LIMIT = 1 << 12
"""Elements up to which a constant read by several nodes is given to each as its own copy."""


def canonicalise(model: onnx.ModelProto, *, fold_batchnorm: bool = True) -> onnx.ModelProto:
    """The canonical form of a model; the argument is left as it is.

    Raises:
        UnsupportedModelError: the model is quantised, or of an opset below 7.
    """
    canonical = _rewritten(model, fold_batchnorm)
    if is_large(canonical):
        gc.collect()  # nodes and tensors refer to each other, and to gigabytes of weights
    return canonical


def _rewritten(model: onnx.ModelProto, fold_batchnorm: bool) -> onnx.ModelProto:
    _refuse_old(model)
    inlined = onnx.inliner.inline_local_functions(model) if model.functions else model
    refuse_quantised(inlined)
    graph = fold_constants(take_apart(split_fused(inlined)))
    _drop_unread_outputs(graph)
    plain_einsums(graph)
    plain_scatters(graph)
    gather_shuffles(graph)
    opset = opset_of(model)
    unpack(graph, opset)
    spell_out_sizes(graph)
    graph.toposort()
    _name_nodes(graph)
    _own_constants(graph)
    if fold_batchnorm:
        _fold_batchnorm(graph)
    names = set(graph.tensors())
    for node in graph.nodes:
        if node.op == "Gemm":
            _plain_gemm(node)
        elif node.op in ("Conv", "ConvTranspose"):
            explicit_pads(node)
        elif node.op == "Split":
            explicit_split(node, opset)
        elif node.op in RECURRENT_OPS:
            explicit_recurrent(node, names)
    graph.cleanup()
    return export_graph(graph, model)


def _refuse_old(model: onnx.ModelProto) -> None:
    opset = opset_of(model)
    standard = any(node.domain in ("", "ai.onnx") for node in model.graph.node)
    if standard and opset < OLDEST_OPSET:
        raise UnsupportedModelError(
            f"the model uses opset {opset}, the oldest supported is {OLDEST_OPSET}: convert it "
            "with onnx.version_converter.convert_version first"
        )


def refuse_quantised(model: onnx.ModelProto) -> None:
    """Raise UnsupportedModelError for a model that holds quantised operators."""
    ops = Counter(node.op_type for node in model.graph.node if node.op_type in QUANTIZED_OPS)
    if ops:
        found = ", ".join(f"{op} x{count}" for op, count in sorted(ops.items()))
        raise UnsupportedModelError(
            f"the model is quantised ({found}): prune the float model first, then quantise it"
        )


def _drop_unread_outputs(graph: gs.Graph) -> None:
    """Remove the mask of a Dropout and the indices of a MaxPool where nothing reads them."""
    outputs = {id(tensor) for tensor in graph.outputs}
    for node in graph.nodes:
        if node.op in ("Dropout", "MaxPool") and len(node.outputs) == 2:
            second = node.outputs[1]
            if not second.outputs and id(second) not in outputs:
                node.outputs.pop()


def _name_nodes(graph: gs.Graph) -> None:
    """Give every node a unique name: groups and plans are keyed by it."""
    taken = Counter(node.name for node in graph.nodes)
    used = set(taken)
    seen: set[str] = set()
    for index, node in enumerate(graph.nodes):
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        name = f"{node.name or node.op}_{index}"
        while name in used:
            name += "_"
        node.name = name
        used.add(name)
        seen.add(name)


def _own_constants(graph: gs.Graph) -> None:
    """Give each reader of a small constant its own copy, so that cutting one cuts no other.

    Exporters share equal constants (a zero bias, a shape) between unrelated layers.
    """
    places: dict[int, list[tuple[gs.Node, int]]] = defaultdict(list)
    for node in graph.nodes:
        for position, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                places[id(tensor)].append((node, position))
    outputs = {id(tensor) for tensor in graph.outputs}
    names = set(graph.tensors())
    for readers in places.values():
        constant = readers[0][0].inputs[readers[0][1]]
        keep_original = id(constant) in outputs
        for node, position in readers if keep_original else readers[1:]:
            if constant.values.size > SHARED_CONSTANT_LIMIT and not _tied_across(constant):
                break
            name = fresh(f"{constant.name}/{node.name}", names)
            node.inputs[position] = gs.Constant(name, constant.values.copy())


def _tied_across(weight: gs.Constant) -> bool:
    """Whether a weight and its transpose are multiplied by: each then has to be refitted alone."""
    roles = {(node.op, node.attrs.get("transB", 0)) for node in weight.outputs}
    linear = all(
        node.op in ("Gemm", "MatMul") and node.inputs[1] is weight for node in weight.outputs
    )
    return linear and len(roles) > 1


def _fold_batchnorm(graph: gs.Graph) -> None:
    """Fold y = s (W x + b - mean) + beta, s = scale / sqrt(var + eps), into W and b."""
    outputs = {id(tensor) for tensor in graph.outputs}
    names = set(graph.tensors())
    for norm in graph.nodes:
        if norm.op != "BatchNormalization" or norm.attrs.get("training_mode", 0):
            continue
        linear = norm.inputs[0].inputs[0] if norm.inputs[0].inputs else None
        if linear is None or not _absorbs_batchnorm(linear, outputs):
            continue
        parameters = [t.values for t in norm.inputs[1:5] if isinstance(t, gs.Constant)]
        if len(parameters) < 4 or len(norm.outputs) != 1 or not _of_its_outputs(linear, parameters):
            continue
        _absorb(linear, parameters, norm.attrs.get("epsilon", 1e-5), names)
        linear.outputs = [norm.outputs[0]]
        norm.outputs.clear()
    graph.cleanup()


def _absorbs_batchnorm(linear: gs.Node, outputs: set[int]) -> bool:
    """Whether this node's weights can take a per-channel scale of its output."""
    if linear.op not in ("Conv", "ConvTranspose", "Gemm"):
        return False
    constants = linear.inputs[1:]
    if len(constants) > 1 and not _is_row(constants[1]):
        return False
    return (
        len(linear.outputs[0].outputs) == 1
        and id(linear.outputs[0]) not in outputs
        and all(isinstance(t, gs.Constant) and len(t.outputs) == 1 for t in constants)
    )


def _of_its_outputs(linear: gs.Node, parameters: list[Array]) -> bool:
    """Whether there is one of each parameter per output; folded constants may show otherwise."""
    shape = linear.inputs[1].values.shape
    if len(shape) < 2:
        return False
    if linear.op == "ConvTranspose":
        outputs = shape[1] * linear.attrs.get("group", 1)
    else:
        by_row = linear.op == "Conv" or linear.attrs.get("transB", 0)
        outputs = shape[0] if by_row else shape[1]
    biases = [bias.values.size for bias in linear.inputs[2:]]
    return all(p.shape == (outputs,) for p in parameters) and set(biases) <= {1, outputs}


def _absorb(
    linear: gs.Node,
    parameters: list[Array],
    epsilon: float,
    names: set[str],
) -> None:
    scale, beta, mean, variance = (p.astype(np.float64) for p in parameters)
    factor = scale / np.sqrt(variance + epsilon)
    weight = linear.inputs[1]
    dtype = weight.values.dtype
    alpha, gemm_beta = linear.attrs.get("alpha", 1.0), linear.attrs.get("beta", 1.0)
    scales = _by_output(linear, factor)
    weight.values = (weight.values * alpha * scales).astype(dtype)
    bias = linear.inputs[2].values * gemm_beta if len(linear.inputs) > 2 else 0.0
    if linear.op == "Gemm":
        linear.attrs.update(alpha=1.0, beta=1.0)
    values = ((bias - mean) * factor + beta).astype(dtype).reshape(-1)
    constant = gs.Constant(fresh(f"{linear.name}.bias", names), values)
    if len(linear.inputs) > 2:
        linear.inputs[2] = constant
    else:
        linear.inputs.append(constant)


def _by_output(linear: gs.Node, factor: Array) -> Array:
    """A factor per output, in a shape that multiplies the weights of that output."""
    shape = linear.inputs[1].values.shape
    if linear.op == "Conv" or linear.attrs.get("transB", 0):
        return factor.reshape(-1, *[1] * (len(shape) - 1))
    if linear.op == "Gemm":
        return factor.reshape(1, -1)
    groups = linear.attrs.get("group", 1)  # (inputs, outputs / groups, *kernel)
    rows = factor.reshape(groups, shape[1]).repeat(shape[0] // groups, axis=0)
    return rows.reshape(*shape[:2], *[1] * (len(shape) - 2))


def _is_row(bias: gs.Tensor) -> bool:
    """Whether the C of a Gemm is the same for every sample: a scalar, [M] or [1, M]."""
    last = bias.shape[-1] if bias.shape else 1
    return isinstance(bias, gs.Constant) and bool(bias.values.size == last)


def _plain_gemm(node: gs.Node) -> None:
    """Move alpha and beta of a Gemm with constant weights into them; bias as a vector."""
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant) or len(weight.outputs) > 1 or len(weight.shape) != 2:
        return
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    if alpha != 1.0:
        weight.values = (weight.values * alpha).astype(weight.values.dtype)
        node.attrs["alpha"] = 1.0
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None or bias.is_empty():
        node.attrs["beta"] = 1.0
    elif _is_row(bias) and len(bias.outputs) == 1:
        outputs = weight.values.shape[0 if node.attrs.get("transB", 0) else 1]
        values = bias.values.reshape(-1) * beta
        if values.size not in (1, outputs):
            return  # refused where the layer's bias is read
        bias.values = np.broadcast_to(values, (outputs,)).astype(bias.values.dtype)
        node.attrs["beta"] = 1.0
