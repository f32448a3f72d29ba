"""The full-size network whose consumers' weights can be replaced: what a cut network computes.

Recovered weights padded with zeros where entries are cut compute what the cut network would, so
that no graph has to be rewritten. A product of two activations has no weights; a mask that
multiplies its first factor stands for them, whether or not a projection takes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, Vector
from onnxprune.groups import find_groups
from onnxprune.linear_map import Contraction, LinearMap
from onnxprune.model import export_graph
from onnxprune.rewrite import add_bias

NONE: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True)
class _Slot:
    """The initializers that hold a consumer's weight and biases.

    Attributes:
        weight: the weight's.
        biases: for every node with that weight its map, the initializer, and by how much its bias
            differs from that of the first.
    """

    weight: str
    biases: tuple[tuple[LinearMap, str, Vector], ...]


@dataclass(frozen=True)
class FullSize:
    """A model in which every consumer has a weight, a bias and every product a mask to replace.

    Attributes:
        model: the model; nothing is replaced in it.
        values: what the initializers hold that can be replaced.
        slots: consumer name -> which of them are its own.
        masks: name of a product of two activations -> the one that holds its mask.
    """

    model: onnx.ModelProto
    values: Mapping[str, Array]
    slots: Mapping[str, _Slot]
    masks: Mapping[str, str]

    @classmethod
    def of(cls, canonical: onnx.ModelProto) -> FullSize:
        """The full-size network of a canonical model."""
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
        values = {name: np.ascontiguousarray(held.values) for name, held in constants.items()}
        return cls(export_graph(network.graph, canonical), values, slots, masks)

    def replaced(
        self,
        weights: Mapping[str, tuple[Array, Array]],
        masks: Mapping[str, Array] = NONE,
        before: Mapping[str, Array] = NONE,
    ) -> dict[str, Array]:
        """Initializers and what they hold when consumers have other weights.

        Args:
            weights: consumer name -> (full-size weight, bias) instead of its own.
            masks: name of a product of two activations -> what to multiply its first factor's
                last axis with.
            before: what initializers already hold instead of their own; a bias may share one with
                another map's.
        """
        values = {self.masks[name]: mask for name, mask in masks.items()}
        for name, (weight, bias) in weights.items():
            slot = self.slots[name]
            values[slot.weight] = weight
            for sharer, place, offset in slot.biases:
                held = values.get(place, before.get(place, self.values[place]))
                values[place] = sharer.with_bias(held, bias + offset)
        return values

    def places(self, consumers: Iterable[str], products: Iterable[str] = ()) -> set[str]:
        """The initializers that hold something else once these consumers and masks do.

        Args:
            consumers: names of consumers.
            products: names of products of two activations.
        """
        slots = [self.slots[name] for name in consumers]
        biases = {place for slot in slots for _, place, _ in slot.biases}
        return biases | {slot.weight for slot in slots} | {self.masks[name] for name in products}

    def with_inputs(self) -> onnx.ModelProto:
        """The model with graph inputs of the same names instead of those initializers."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        stay = [tensor for tensor in model.graph.initializer if tensor.name not in self.values]
        del model.graph.initializer[:]
        model.graph.initializer.extend(stay)
        given = {value.name for value in model.graph.input}
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(held.dtype), held.shape
            )
            for name, held in self.values.items()
            if name not in given
        )
        return model


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
