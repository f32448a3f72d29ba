"""Trial prunings: the full-size network with some consumers' weights replaced.

The weights and biases of all consumers are graph inputs of one session. A trial feeds recovered
weights padded with zeros where entries are cut, which computes what the cut network would, so
that no trial needs a new graph or session. A product of two activations has no weights; a mask
that multiplies its first factor stands for them, whether or not a projection takes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, Feed, Vector
from onnxprune.comparison import OutputDistance, distances, is_numeric
from onnxprune.errors import UnsupportedModelError
from onnxprune.executor import Executor
from onnxprune.groups import find_groups
from onnxprune.linear_map import Contraction, LinearMap
from onnxprune.model import export_graph
from onnxprune.rewrite import add_bias
from onnxprune.runtime import Provider, Session

NO_MASKS: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True)
class _Slot:
    """The graph inputs that take a consumer's weight and biases.

    Attributes:
        weight: the weight's.
        biases: for every node with that weight its map, the input, and by how much its bias differs
            from that of the first.
    """

    weight: str
    biases: tuple[tuple[LinearMap, str, Vector], ...]


class TrialNetwork:
    """A network that runs with replaced consumer weights.

    Args:
        canonical: the model.
        batches: the samples trials run on; their reference outputs are kept.
        executor: where the batches run.
        provider: onnxruntime provider.
    """

    def __init__(
        self,
        canonical: onnx.ModelProto,
        batches: Iterable[Feed],
        executor: Executor,
        provider: Provider = "cpu",
    ) -> None:
        model, self._slots, self._masks, self._weights = _with_weights_as_inputs(canonical)
        self._session = Session(model, provider=provider, arena=False)
        self._names = [value.name for value in canonical.graph.output]
        self._executor = executor
        self._batches: list[tuple[Feed, list[Array]]] = executor.map_reduce(
            lambda _, feed: (feed, self.predict(feed, {})),
            batches,
            lambda done, pair: [*done, pair],
            [],
            label="reference outputs",
        )
        if not any(is_numeric(output) for _, outputs in self._batches for output in outputs):
            raise UnsupportedModelError(
                "no output of the model is an array of numbers, by which prunings could be judged"
            )

    def distances(
        self,
        replaced: Mapping[str, tuple[Array, Array]],
        masks: Mapping[str, Array] = NO_MASKS,
    ) -> list[OutputDistance]:
        """Distances from the original's of all outputs that are arrays of numbers.

        Args:
            replaced: consumer name -> (full-size weight, bias) to use instead of its own.
            masks: name of a product of two activations -> what to multiply its first factor's
                last axis with.
        """
        feed, reference = self._batches[0]
        total = self._executor.map_reduce(
            lambda _, batch: (batch[1], self.predict(batch[0], replaced, masks)),
            self._batches,
            _add,
            distances(self._names, reference, feed),
        )
        return [distance for distance in total if distance.samples]

    def predict(
        self,
        feed: Feed,
        replaced: Mapping[str, tuple[Array, Array]],
        masks: Mapping[str, Array] = NO_MASKS,
    ) -> list[Array]:
        """The outputs for one batch; weights and masks as for ``distances``."""
        weights = self._weights | {self._masks[name]: mask for name, mask in masks.items()}
        for name, (weight, bias) in replaced.items():
            slot = self._slots[name]
            weights[slot.weight] = weight
            for sharer, place, offset in slot.biases:
                weights[place] = sharer.with_bias(weights[place], bias + offset)
        return self._session.run({**feed, **weights}, self._names)


def _add(
    total: list[OutputDistance], pair: tuple[Sequence[Array], Sequence[Array]]
) -> list[OutputDistance]:
    for distance, reference, changed in zip(total, *pair, strict=True):
        distance.add(reference, changed)
    return total


def _with_weights_as_inputs(
    canonical: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, _Slot], dict[str, str], dict[str, Array]]:
    """The model with weights, biases and masks as inputs, their names, and the values they had."""
    network = find_groups(canonical)
    slots, masks = {}, {}
    constants: dict[str, gs.Constant] = {}
    for name, linear_map in network.consumers.items():
        weight, first = linear_map.weight, linear_map.bias_vector()
        constants[weight.name] = weight
        biases = []
        for sharer in linear_map.sharers:
            own = sharer.bias_vector()
            bias = add_bias(network.graph, sharer, own)
            constants[bias.name] = bias
            biases.append((sharer, bias.name, own - first))
        slots[name] = _Slot(weight.name, tuple(biases))
    for name, contraction in network.contractions.items():
        if network.channels(contraction.node.inputs[0], contraction.a_axis).size:
            mask = _insert_mask(network.graph, contraction)
            masks[name] = mask.name
            constants[mask.name] = mask
    values = {name: np.ascontiguousarray(constant.values) for name, constant in constants.items()}
    inputs = [_promote(constant) for constant in constants.values()]
    model = export_graph(network.graph, canonical)
    model.graph.input.extend(inputs)
    return model, slots, masks, values


def _insert_mask(graph: gs.Graph, contraction: Contraction) -> gs.Constant:
    """Multiply the last axis of a product's first factor by ones."""
    node, factor = contraction.node, contraction.node.inputs[0]
    ones = np.ones(factor.shape[-1], factor.dtype)
    mask = gs.Constant(f"{node.name}.mask", ones)
    masked = gs.Variable(f"{node.name}/masked", dtype=factor.dtype, shape=factor.shape)
    node.inputs[0] = masked
    mul = gs.Node("Mul", f"{node.name}/mask", {}, [factor, mask], [masked])
    graph.nodes.insert(graph.nodes.index(node), mul)
    return mask


def _promote(constant: gs.Constant) -> onnx.ValueInfoProto:
    """Let the readers of a constant read a graph input of the same name instead."""
    values = constant.values
    variable = gs.Variable(constant.name, dtype=values.dtype, shape=values.shape)
    for reader in list(constant.outputs):
        place = next(i for i, tensor in enumerate(reader.inputs) if tensor is constant)
        reader.inputs[place] = variable
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    return onnx.helper.make_tensor_value_info(constant.name, kind, values.shape)
