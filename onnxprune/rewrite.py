"""``apply``: the only place that changes a graph. It needs no data, only a plan."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray, Vector
from onnxprune.canonical import canonicalise
from onnxprune.dropping import chosen_sections, drop
from onnxprune.errors import PlanMismatchError
from onnxprune.groups import find_groups
from onnxprune.linear_map import LinearMap, added_constant, results
from onnxprune.metadata import record_for, stamp
from onnxprune.model import export_graph
from onnxprune.names import fresh
from onnxprune.network import FROZEN, Network
from onnxprune.plan import Plan, Weights
from onnxprune.rules import find_fixup
from onnxprune.section_search import find_sections
from onnxprune.sections import Section

NO_WEIGHTS = Weights({})
OTHER_MODEL = "the plan was made for another model; make a new one, or apply it to the original"


def apply(model: onnx.ModelProto, plan: Plan, weights: Weights = NO_WEIGHTS) -> onnx.ModelProto:
    """Cut a model as the plan says; the argument is left as it is.

    Args:
        model: the model the plan was made for, as it was read from its file.
        plan: what to keep.
        weights: recovered weights of consumers, and what is added in place of sections; consumers
            without any are only sliced, sections without any leave nothing. Refined values are
            written over what this makes.

    Returns:
        The pruned model, with the header, inputs and outputs of ``model``, and the plan's record
        as far as it holds.

    Raises:
        PlanMismatchError: the plan or the weights belong to another model.
    """
    if plan.model != digest(model):
        raise PlanMismatchError(OTHER_MODEL)
    if weights.plan not in ("", plan.fingerprint):
        raise PlanMismatchError(
            "the weights were recovered for other channels than the plan keeps; recover them for "
            "this plan (onnxprune apply --calib) or apply it without weights"
        )
    canonical = canonicalise(model)
    network = find_groups(canonical)
    sections = _dropped(network, canonical, plan, weights)
    cut = Cut(network, kept_channels(network, plan))
    recovered = _write_recovered(network, cut, weights)
    _slice_shared_outputs(network, cut)
    for node in network.graph.nodes:
        repair = find_fixup(node)
        if repair is not None:
            repair(node, cut)
    _slice_constants(network, cut, recovered)
    drop(network.graph, sections, weights.constants, cut)
    network.graph.cleanup()
    pruned = export_graph(network.graph, model)
    _write_refined(pruned, weights.refined)
    stamp(pruned, record_for(plan.record, plan.fingerprint, len(weights.arrays)))
    return pruned


def _write_refined(pruned: onnx.ModelProto, refined: Mapping[str, Array]) -> None:
    """Give initializers the values that training has found."""
    found = {tensor.name: tensor for tensor in pruned.graph.initializer}
    for name, values in refined.items():
        tensor = found.get(name)
        if tensor is None or list(tensor.dims) != list(values.shape):
            raise PlanMismatchError(
                f"the weights refine '{name}' of shape {list(values.shape)}, which the pruned "
                "model lacks; apply them with the plan they were saved with"
            )
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        new = onnx.numpy_helper.from_array(values.astype(kind), name)
        for field in ("float_data", "double_data", "int32_data"):
            tensor.ClearField(field)
        tensor.raw_data = new.raw_data


def _dropped(
    network: Network, canonical: onnx.ModelProto, plan: Plan, weights: Weights
) -> list[Section]:
    """The sections a plan drops."""
    if not plan.drops and not weights.constants:
        return []
    found = find_sections(network, canonical).found
    return chosen_sections(found, plan.drops, weights.constants)


def digest(model: onnx.ModelProto) -> str:
    """A SHA-256 of the graph and its weights; header and metadata do not count."""
    state = hashlib.sha256()
    for node in model.graph.node:
        state.update(node.SerializeToString(deterministic=True))
    for value in (*model.graph.input, *model.graph.output):
        state.update(value.SerializeToString(deterministic=True))
    for function in model.functions:
        state.update(function.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        state.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode())
        state.update(onnx.numpy_helper.to_array(tensor).tobytes())
    return state.hexdigest()


def kept_channels(network: Network, plan: Plan) -> Array:
    """Which network-wide channels survive a plan, as ``Network.survivors`` has them.

    Raises:
        PlanMismatchError: an edit names no group, or unequal counts per balanced part.
    """
    repeated = [name for name, count in Counter(e.group for e in plan.keeps).items() if count > 1]
    if repeated:
        raise PlanMismatchError(f"the plan cuts group '{repeated[0]}' twice; merge its edits")
    groups = {group.name: group for group in network.groups}
    for edit in plan.keeps:
        group = groups.get(edit.group)
        if group is None or group.size != edit.size:
            there = (
                f"it has {', '.join(sorted(groups))}"
                if group is None
                else f"the group has {group.size} there"
            )
            raise PlanMismatchError(
                f"the plan cuts group '{edit.group}' of {edit.size} units, which the model lacks; "
                f"{there}"
            )
        counts = np.bincount(group.parts[list(edit.keep)], minlength=group.part_count)
        if np.unique(counts).size > 1:
            raise PlanMismatchError(
                f"group '{edit.group}' needs equal counts in its {group.part_count} parts, "
                f"not {counts.tolist()}"
            )
    return network.survivors({edit.group: edit.keep for edit in plan.keeps})


class Cut:
    """Which indices of every axis survive; what rules' fix-ups ask."""

    def __init__(self, network: Network, alive: Array) -> None:
        self._network = network
        self._alive = alive

    def mask(self, tensor: gs.Tensor, axis: int) -> Array:
        """Which indices of an axis survive, shape (extent,), bool."""
        channels = self._network.channels(tensor, axis)
        mask: Array = channels == FROZEN
        mask[~mask] = self._alive[channels[~mask]]
        return mask

    def entries(self, tensor: gs.Tensor, axis: int) -> IndexArray:
        """The sorted indices of an axis (before the cut) that survive it."""
        return np.flatnonzero(self.mask(tensor, axis))

    def is_cut(self, tensor: gs.Tensor, axis: int) -> bool:
        """Whether the axis loses indices."""
        return not bool(self.mask(tensor, axis).all())

    def inputs(self, linear_map: LinearMap) -> list[IndexArray]:
        """The entries of its part that every part of a linear map keeps reading."""
        mask = self.mask(linear_map.x, linear_map.x_axis)
        return [np.flatnonzero(part) for part in linear_map.read(mask)]

    def outputs(self, linear_map: LinearMap) -> list[IndexArray]:
        """The channels of its part that every part of a linear map keeps making."""
        mask = self.mask(linear_map.y, linear_map.y_axis)
        return [np.flatnonzero(part) for part in np.split(mask, linear_map.groups)]


def _write_recovered(network: Network, cut: Cut, weights: Weights) -> set[tuple[int, int]]:
    """Set recovered weights and slice grouped ones; return the weight axes that are done."""
    unknown = set(weights.arrays) - set(network.consumers)
    if unknown:
        raise PlanMismatchError(f"the weights name consumers the model lacks: {sorted(unknown)}")
    done = set()
    outside = results(network.graph)
    for name, linear_map in network.consumers.items():
        keep = cut.inputs(linear_map)
        if name in weights.arrays:
            weight, bias = weights.arrays[name]
            _check_shape(linear_map, weight, bias, keep)
            for sharer, own in sharers_biases(linear_map, bias):
                _write_bias(network, cut, sharer, own, outside)
            linear_map.weight.values = weight.astype(linear_map.weight.values.dtype)
        elif linear_map.groups > 1 and cut.is_cut(linear_map.x, linear_map.x_axis):
            linear_map.weight.values = linear_map.slice_inputs(linear_map.weight.values, keep)
        else:
            continue
        done.add((id(linear_map.weight), linear_map.in_axis))
    return done


def _write_bias(
    network: Network, cut: Cut, linear_map: LinearMap, bias: Vector, outside: set[int]
) -> None:
    """Write a bias of shape (outputs,) where one is, else where it needs no new node."""
    if linear_map.bias is not None:
        add_bias(network.graph, linear_map, bias)
        return
    kept = bias[cut.entries(linear_map.y, linear_map.y_axis)]
    if kept.any() and not _added_behind(linear_map, bias, outside):
        # A new constant, which _slice_constants knows nothing of.
        add_bias(network.graph, linear_map, kept)


def _slice_shared_outputs(network: Network, cut: Cut) -> None:
    """Slice transposed grouped weights, whose output axis has an index for a channel per part."""
    for linear_map in network.consumers.values():
        y = linear_map.y
        if linear_map.transposed and linear_map.groups > 1 and cut.is_cut(y, linear_map.y_axis):
            keep = cut.outputs(linear_map)
            linear_map.weight.values = linear_map.slice_outputs(linear_map.weight.values, keep)


def _check_shape(linear_map: LinearMap, weight: Array, bias: Array, keep: list[IndexArray]) -> None:
    expected = list(linear_map.weight.shape)
    outputs = linear_map.outputs
    kept = keep if linear_map.transposed else keep[:1]  # else the parts share the input axis
    expected[linear_map.in_axis] = sum(part.size for part in kept)
    if list(weight.shape) != expected or bias.shape != (outputs,):
        raise PlanMismatchError(
            f"weight and bias of '{linear_map.name}' have shapes {list(weight.shape)} and "
            f"{list(bias.shape)}, the plan needs {expected} and [{outputs}]; recover them for this "
            "plan or apply it without weights"
        )


def sharers_biases(linear_map: LinearMap, bias: Vector) -> list[tuple[LinearMap, Vector]]:
    """The bias of every map with this weight when that of the first becomes ``bias``.

    What the weights take over from channels that are gone is the same for all.
    """
    change = bias - linear_map.bias_vector()
    twins = [(twin, twin.bias_vector() + change) for twin in linear_map.twins]
    return [(linear_map, bias), *twins]


def add_bias(graph: gs.Graph, linear_map: LinearMap, bias: Array) -> gs.Constant:
    """Write a bias of shape (outputs,): into its slot, a new slot, or an Add after a MatMul."""
    node = linear_map.node
    if linear_map.bias is not None:
        linear_map.bias.values = linear_map.with_bias(linear_map.bias.values, bias)
        return linear_map.bias
    constant = _bias_constant(graph, node, np.asarray(bias, linear_map.weight.values.dtype))
    if node.op == "MatMul":
        _insert_add(graph, node, constant)
    else:
        while len(node.inputs) > 2:  # an empty optional input
            node.inputs.pop()
        node.inputs.append(constant)
    return constant


def _added_behind(linear_map: LinearMap, bias: Vector, outside: set[int]) -> bool:
    """Write a bias of shape (outputs,) into the constant of an Add right behind, if there is one.

    The constant may have positions in front of its last axis, which every bias is added to alike.
    """
    found = added_constant(linear_map.y, outside)
    rank = len(linear_map.y.shape or ())
    if found is None or linear_map.y_axis != rank - 1:
        return False
    _, constant = found
    shape = constant.values.shape
    if len(shape) > rank or shape[-1:] != bias.shape:
        return False
    constant.values = (constant.values + bias).astype(constant.values.dtype)
    return True


def _bias_constant(graph: gs.Graph, node: gs.Node, values: Array) -> gs.Constant:
    name, taken = f"{node.name}.bias", graph.tensors()
    while name in taken:
        name += "_"
    return gs.Constant(name, values)


def _insert_add(graph: gs.Graph, node: gs.Node, constant: gs.Constant) -> None:
    """Put an Add behind a MatMul; readers of its output read the sum."""
    y = node.outputs[0]
    product = gs.Variable(f"{y.name}/product", dtype=y.dtype, shape=y.shape)
    node.outputs[0] = product
    name = fresh(f"{node.name}/bias", {other.name for other in graph.nodes})
    add = gs.Node("Add", name, {}, [product, constant], [y])
    graph.nodes.insert(graph.nodes.index(node) + 1, add)


def _slice_constants(network: Network, cut: Cut, done: set[tuple[int, int]]) -> None:
    for constant, axis in _constant_axes(network):
        if (id(constant), axis) not in done and cut.is_cut(constant, axis):
            constant.values = np.take(constant.values, cut.entries(constant, axis), axis=axis)


def _constant_axes(network: Network) -> Iterator[tuple[gs.Constant, int]]:
    constants = {id(t): t for t in network.graph.tensors().values() if isinstance(t, gs.Constant)}
    for key, axis in network.channel_of:
        if key in constants:
            yield constants[key], axis
