"""What makes a pruned model right, independent of the code that prunes.

*Slicing equals masking*: a model cut by a plan computes what the uncut model computes once every
weight entry that reads a removed channel is zero. The mask is built here, from the network's
channels and ONNX protobufs alone; graphsurgeon, the rules' fix-ups and the rewriter take no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups
from onnxprune.linear_map import LinearMap
from onnxprune.network import FROZEN, Network
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.random_inputs import random_feed as timing_feed
from onnxprune.rewrite import digest
from onnxprune.runtime import Session

Array = np.ndarray
Recovered = dict[str, tuple[Array, Array]]

EPS = float(np.finfo(np.float32).eps)
RECURRENT_OPS = ("GRU", "LSTM", "RNN")


def tolerance(network: Network) -> float:
    """How far two float32 evaluations may lie apart, relative to the largest output.

    Cutting leaves out zeros and lets the runtime sum the same products in another order. A sum
    of n products then moves by about sqrt(n) / 4 eps of its size (roundings are random), n up
    to some hundred here: 4 eps per linear map, doubled as both evaluations are rounded. Largest
    seen: 0.6 eps per map.
    """
    return 8 * EPS * (len(network.producers) + 1)


@dataclass(frozen=True)
class Subject:
    """A model under test, canonicalised and analysed once."""

    model: onnx.ModelProto

    @cached_property
    def canonical(self) -> onnx.ModelProto:
        return canonicalise(self.model)

    @cached_property
    def network(self) -> Network:
        return find_groups(self.canonical)

    @cached_property
    def digest(self) -> str:
        return digest(self.model)

    def plan(self, keeps: Mapping[str, Array]) -> Plan:
        groups = {group.name: group for group in self.network.groups}
        edits = (
            Keep(name, tuple(int(u) for u in keep), groups[name].size)
            for name, keep in keeps.items()
        )
        return Plan(self.digest, tuple(edits))

    def alive(self, keeps: Mapping[str, Array]) -> Array:
        """Which network-wide channels a keep per group leaves, those that need others last."""
        alive = np.ones(sum(group.size for group in self.network.groups), bool)
        for group in self.network.groups:
            if group.name in keeps:
                alive[group.channels] = np.isin(np.arange(group.size), keeps[group.name])
        needed = [[c for c in row if c != FROZEN] for row in self.network.products.tolist()]
        return np.append(alive, [alive[row].all() for row in needed]).astype(bool)


def random_keeps(
    network: Network, rng: np.random.Generator, fraction: float | None = None
) -> dict[str, Array]:
    """A sorted keep per group, equal counts per balanced part; counts at random or a fraction."""
    keeps = {}
    for group in network.groups:
        part_size = group.size // group.part_count
        count = int(rng.integers(1, part_size + 1)) if fraction is None else fraction * part_size
        picked = [
            rng.choice(np.flatnonzero(group.parts == part), max(1, int(count)), replace=False)
            for part in range(group.part_count)
        ]
        keeps[group.name] = np.sort(np.concatenate(picked))
    return keeps


def input_masks(network: Network, linear_map: LinearMap, alive: Array) -> list[Array]:
    """For every part of a consumer, which entries of its input survive."""
    channels = network.channels(linear_map.x, linear_map.x_axis)
    if not channels.size:  # unknown extent: cannot be cut
        parts = linear_map.groups if part_axis(linear_map) != linear_map.in_axis else 1
        extent = linear_map.weight.shape[linear_map.in_axis] * parts
        channels = np.full(extent, FROZEN)
    mask = np.array([channel == FROZEN or alive[channel] for channel in channels])
    return list(mask.reshape(linear_map.groups, -1))


def masked(subject: Subject, alive: Array) -> onnx.ModelProto:
    """The canonical model with zeros for every weight entry that reads a removed channel."""
    return _with_weights(
        subject,
        {
            name: (_zeroed(subject.network, linear_map, alive), None)
            for name, linear_map in subject.network.consumers.items()
        },
        alive,
    )


def scattered(subject: Subject, alive: Array, recovered: Recovered) -> onnx.ModelProto:
    """The canonical model with recovered weights in full size, zeros for removed entries."""
    full: dict[str, tuple[Array, Array | None]] = {}
    for name, linear_map in subject.network.consumers.items():
        if name not in recovered:
            full[name] = (_zeroed(subject.network, linear_map, alive), None)
            continue
        weight, bias = recovered[name]
        blocks = _blocks(linear_map, np.zeros(linear_map.weight.shape, np.float32))
        cut = np.split(weight, linear_map.groups, axis=part_axis(linear_map))
        masks = input_masks(subject.network, linear_map, alive)
        for block, values, mask in zip(blocks, cut, masks, strict=True):
            np.moveaxis(block, linear_map.in_axis, 0)[mask] = np.moveaxis(
                values, linear_map.in_axis, 0
            )
        whole = np.concatenate(blocks, axis=part_axis(linear_map))
        full[name] = (whole, bias)
        for twin in linear_map.twins:  # the same weights, and the same change of its own bias
            change = bias - linear_map.bias_vector()
            full[twin.name] = (whole, (twin.bias_vector() + change).astype(bias.dtype))
    return _with_weights(subject, full, alive)


def random_recovery(subject: Subject, alive: Array, rng: np.random.Generator) -> Recovered:
    """Weights of the right shape for every consumer a keep touches, and biases."""
    recovered = {}
    for name, linear_map in subject.network.consumers.items():
        masks = input_masks(subject.network, linear_map, alive)
        if all(mask.all() for mask in masks):
            continue
        shape = list(linear_map.weight.shape)
        outputs = shape[linear_map.out_axis] * (shape[0] if recurrent(linear_map) else 1)
        shape[linear_map.in_axis] = int(masks[0].sum())
        if part_axis(linear_map) == linear_map.in_axis:
            outputs *= linear_map.groups
            shape[linear_map.in_axis] *= linear_map.groups
        weight = rng.standard_normal(shape) / np.sqrt(np.prod(shape) / shape[linear_map.out_axis])
        bias = rng.standard_normal(outputs)
        dtype = linear_map.weight.values.dtype
        recovered[name] = (weight.astype(dtype), bias.astype(dtype))
    return recovered


def recurrent(linear_map: LinearMap) -> bool:
    """Whether axis 0 of the weights are the directions of a recurrent layer."""
    return linear_map.node.op in RECURRENT_OPS


def part_axis(linear_map: LinearMap) -> int:
    """Axis of a grouped weight along which its parts lie: (in, out / groups) if transposed."""
    return 0 if linear_map.node.op == "ConvTranspose" else linear_map.out_axis


def _blocks(linear_map: LinearMap, weight: Array) -> list[Array]:
    return [b.copy() for b in np.split(weight, linear_map.groups, axis=part_axis(linear_map))]


def _zeroed(network: Network, linear_map: LinearMap, alive: Array) -> Array:
    blocks = _blocks(linear_map, linear_map.weight.values)
    for block, mask in zip(blocks, input_masks(network, linear_map, alive), strict=True):
        np.moveaxis(block, linear_map.in_axis, 0)[~mask] = 0
    return np.concatenate(blocks, axis=part_axis(linear_map))


def _with_weights(
    subject: Subject, weights: Mapping[str, tuple[Array, Array | None]], alive: Array
) -> onnx.ModelProto:
    """A copy of the canonical model with these weights, and biases where given.

    A product of two activations has no weights: removed channels it sums over are multiplied by
    zero in front of it.
    """
    model = onnx.ModelProto()
    model.CopyFrom(subject.canonical)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    extra: list[tuple[str, Array]] = []
    nodes = []
    for node in model.graph.node:
        if node.op_type in RECURRENT_OPS:
            _with_recurrent_weights(subject, initializers, node, weights, alive)
            nodes.append(node)
            continue
        if node.name in subject.network.contractions:
            name, mask = f"oracle mask of {node.name}", summed_mask(subject.network, node, alive)
            extra.append((name, mask))
            nodes.append(helper.make_node("Mul", [node.input[0], name], [f"{name}/product"]))
            node.input[0] = f"{name}/product"
        nodes.append(node)
        if node.name not in weights:
            continue
        weight, bias = weights[node.name]
        initializers[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
        if bias is None:
            continue
        name = f"oracle bias of {node.name}"
        extra.append((name, bias))
        if node.op_type == "MatMul":
            inner = f"oracle product of {node.name}"
            nodes.append(helper.make_node("Add", [inner, name], [node.output[0]]))
            node.output[0] = inner
        else:
            slot = 3 if node.op_type == "DeformConv" else 2
            node.input[slot : slot + 1] = [name]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in extra)
    if model.ir_version < 4:
        model.graph.input.extend(
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, v.shape) for n, v in extra
        )
    return model


def _with_recurrent_weights(
    subject: Subject,
    initializers: Mapping[str, onnx.TensorProto],
    node: onnx.NodeProto,
    weights: Mapping[str, tuple[Array, Array | None]],
    alive: Array,
) -> None:
    """Write W, R and their halves of B; R reads the units whether or not it can be refitted."""
    values = {name: numpy_helper.to_array(t) for name, t in initializers.items()}
    layer = next(n for n in subject.network.graph.nodes if n.name == node.name)
    units = subject.network.channels(layer.outputs[0], 3)
    recurrence = values[node.input[2]].copy()
    recurrence[..., [c != FROZEN and not alive[c] for c in units]] = 0
    maps = {1: (node.name, values[node.input[1]]), 2: (f"{node.name}/recurrence", recurrence)}
    biases = values[node.input[3]].copy()
    rows = recurrence.shape[1]
    for place, (name, unchanged) in maps.items():
        weight, bias = weights.get(name, (unchanged, None))
        if bias is not None:
            biases[:, (place - 1) * rows : place * rows] = bias.reshape(-1, rows)
        initializers[node.input[place]].CopyFrom(numpy_helper.from_array(weight, node.input[place]))
    initializers[node.input[3]].CopyFrom(numpy_helper.from_array(biases, node.input[3]))


def summed_mask(network: Network, node: onnx.NodeProto, alive: Array) -> Array:
    """Zeros for the removed channels on the last axis of a product's first factor."""
    contraction = network.contractions[node.name]
    factor = contraction.node.inputs[0]
    channels = network.channels(factor, len(factor.shape) - 1)
    kept = [float(channel == FROZEN or alive[channel]) for channel in channels]
    return np.array(kept or [1.0], factor.dtype)


# --- running and comparing ----------------------------------------------------------------------


def random_feed(
    model: onnx.ModelProto, rng: np.random.Generator, batch: int = 1, size: int = 9
) -> dict[str, Array]:
    """Random inputs; a dynamic first axis gets ``batch``, other dynamic axes ``size``.

    Whole numbers and truth values are those that the package times models with.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    feed: dict[str, Array] = {}
    shapes = {}
    for value in model.graph.input:
        if value.name in initializers:
            continue
        kind = value.type.tensor_type
        shape = shapes[value.name] = tuple(
            dim.dim_value if dim.dim_value > 0 else (batch if axis == 0 else size)
            for axis, dim in enumerate(kind.shape.dim)
        )
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if np.issubdtype(dtype, np.floating):
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
    return feed if len(feed) == len(shapes) else timing_feed(model, shapes) | feed


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    return Session(model, threads=1).run(feed)


def distance(left: list[Array], right: list[Array]) -> float:
    """Largest difference of two results, relative to the largest magnitude of each output."""
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape:
            return float("inf")
        scale = float(np.abs(b).max(initial=0)) or 1.0
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0) / scale
        worst = max(worst, float(gap) if np.isfinite(gap) else float("inf"))
    return worst


def outputs_match(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    limit: float,
    rng: np.random.Generator,
    *,
    size: int = 9,
    batches: tuple[int, ...] = (1, 3),
) -> None:
    """Assert that two models compute the same for random inputs."""
    sessions = Session(model, threads=1), Session(reference, threads=1)
    for batch in batches:
        feed = random_feed(reference, rng, batch, size)
        gap = distance(sessions[0].run(feed), sessions[1].run(feed))
        assert gap <= limit, f"outputs differ by {gap:.3g} of their size, allowed {limit:.3g}"


def float_elements(model: onnx.ModelProto) -> int:
    """Elements of floating-point initializers, counted from the protobuf."""
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    return sum(
        int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type in kinds
    )


def structure_ok(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Assert that a model is valid and has the interface and the header of the original."""
    onnx.checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    initializers = {t.name for t in original.graph.initializer}
    kept = {t.name for t in model.graph.initializer}
    assert [v for v in model.graph.input if v.name not in kept] == [
        v for v in original.graph.input if v.name not in initializers
    ]
    assert list(model.graph.output) == list(original.graph.output)
    assert model.ir_version == original.ir_version
    assert list(model.opset_import) == list(original.opset_import)


def weights_of(recovered: Recovered) -> Weights:
    return Weights(recovered)
