"""Gates on the units of channel groups, as masks on the weights of the layers that read them.

A unit is a channel of a group, or, where balanced parts keep equal counts, one of every part.
Cutting a channel is the same as making it zero for everything that reads it, so that xi multiplies
the columns of the readers' weights: W diag(xi).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from onnxprune.arrays import IndexArray
from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups
from onnxprune.linear_map import LinearMap
from onnxprune.network import ChannelGroup, Network
from onnxprune.sections import FrozenSection
from onnxprune.train.network import TrainableNetwork

NO_GATE = -1
"""Stands for channels that are always there, where a gate is expected."""


@dataclass(frozen=True)
class GatedGroup:
    """A channel group whose units have gates.

    Attributes:
        name: the group's name.
        gates: the gate of every unit, shape (units,), in the group's order.
    """

    name: str
    gates: IndexArray


class UnitMasks:
    """The masks of a network, which multiply its weights from now on.

    Args:
        network: it is given substitutes for weights.
        model: the model it was made of.

    Attributes:
        groups: those with gates.
        frozen: those without, and why.
        count: how many gates there are.
    """

    def __init__(self, network: TrainableNetwork, model: onnx.ModelProto) -> None:
        self._network = network
        known = find_groups(canonicalise(model))
        own = _Weights(network)
        reasons = {group.name: _reason(own, known, group) for group in known.groups}
        self.frozen = tuple(FrozenSection(name, why) for name, why in reasons.items() if why)
        gate_of = np.full(known.size, NO_GATE, np.int64)
        groups, count = [], 0
        for group in known.groups:
            if not reasons[group.name]:
                gates = count + _rank_in_part(group.parts)
                gate_of[group.channels] = gates
                groups.append(GatedGroup(group.name, gates))
                count = int(gates.max()) + 1
        self.groups, self.count = tuple(groups), count
        device = network.device
        self._gate_of = torch.tensor(gate_of, device=device)
        self._products = torch.tensor(known.products, device=device)
        self._columns: dict[str, Tensor] = {}
        for linear_map in known.consumers.values():
            channels = known.channels(linear_map.x, linear_map.x_axis)
            name = own.of(linear_map)
            if name is not None and (channels != NO_GATE).any():
                columns = own.turned(linear_map, _columns(linear_map, channels))
                self._columns[name] = torch.tensor(columns, device=device)
        self._factors = self.factors(torch.ones(count, device=device))
        for name in self._columns:
            network.substitute(name, _Masked(self, name))

    def factors(self, gates: Tensor) -> Tensor:
        """What every channel is multiplied by when the gates have these values.

        Args:
            gates: shape (gates,).

        Returns:
            Shape (channels + products + 1,); the last is 1, for channels that cannot be cut.
        """
        one = torch.ones(1, device=gates.device)
        own = torch.cat([gates, one])[self._gate_of]
        together = torch.cat([own, one])[self._products].prod(dim=1)
        return torch.cat([own, together, one])

    def set(self, gates: Tensor) -> None:
        """Multiply by these values, shape (gates,), from now on."""
        self._factors = self.factors(gates)

    def masked(self, name: str, weight: Tensor) -> Tensor:
        """A weight times its mask."""
        mask = self._factors[self._columns[name]]
        return weight * mask.to(weight.device)  # which may have left the device of training

    @torch.no_grad()
    def scale(self, gates: Tensor) -> None:
        """Multiply the weights themselves that read each unit by a factor, shape (gates,)."""
        factors = self.factors(gates)
        for name, columns in self._columns.items():
            self._network.weights[name].mul_(factors[columns])

    @torch.no_grad()
    def sizes(self) -> Tensor:
        """Root of the sum of squares of the weights that read each unit, shape (gates,)."""
        squares = torch.zeros(self.count + 1, device=self._gate_of.device)
        gate_of = torch.cat([self._gate_of, self._gate_of.new_full((1,), NO_GATE)])
        for name, columns in self._columns.items():
            weight = self._network.weights[name]
            known = torch.where(columns < len(self._gate_of), columns, NO_GATE)
            gates = gate_of[known].expand_as(weight).reshape(-1)
            squares.index_add_(0, gates % (self.count + 1), weight.square().reshape(-1))
        return squares[:-1].sqrt()


class _Masked(nn.Module):
    """The module that stands between a weight and the network."""

    def __init__(self, masks: UnitMasks, name: str) -> None:
        super().__init__()
        self._masks = masks
        self._name = name

    def forward(self, weight: Tensor) -> Tensor:
        """Multiply by the mask."""
        return self._masks.masked(self._name, weight)


def _rank_in_part(parts: IndexArray) -> IndexArray:
    """For every unit of a group how many come before it in its balanced part."""
    ranks = np.empty_like(parts)
    for part in np.unique(parts):
        own = parts == part
        ranks[own] = np.arange(own.sum())
    return ranks


class _Weights:
    """The network's own weights of the linear maps of the canonical form."""

    def __init__(self, network: TrainableNetwork) -> None:
        self._weights = network.weights
        self._layers = {layer.node: layer for layer in network.linear_layers()}

    def of(self, linear_map: LinearMap) -> str | None:
        """The name of a map's weight; None where it is computed from something else."""
        layer = self._layers.get(linear_map.name)
        name = linear_map.weight.name if layer is None else layer.weight
        own, shape = self._weights.get(name), tuple(linear_map.weight.shape)
        if own is None or tuple(own.shape) not in (shape, shape[::-1]):
            return None
        return str(name)

    def turned(self, linear_map: LinearMap, columns: IndexArray) -> IndexArray:
        """Columns for a weight that a Transpose stands behind."""
        layer = self._layers.get(linear_map.name)
        if layer is None or columns.ndim != 2 or layer.inputs_first == (linear_map.in_axis == 0):
            return columns
        return columns.T


def _reason(own: _Weights, known: Network, group: ChannelGroup) -> str:
    """Why the units of a group can have no gates; empty where they can."""
    if group.contractions:
        return f"its channels are read by the product '{group.contractions[0]}'"
    if not group.consumers:
        return "no layer reads its channels"
    for name in group.consumers:
        if own.of(known.consumers[name]) is None:
            return (
                f"the weight of '{name}' is computed from something else, or another kind of layer"
            )
    return ""


def _columns(linear_map: LinearMap, channels: IndexArray) -> IndexArray:
    """The channel that every column of a weight multiplies, in a shape that broadcasts over it."""
    rank = len(linear_map.weight.shape)
    if linear_map.groups > 1 and not linear_map.transposed:
        parts = np.stack(linear_map.read(channels))
        rows = parts.repeat(linear_map.outputs // linear_map.groups, axis=0)
        return rows.reshape(*rows.shape, *[1] * (rank - 2))
    shape = [1] * rank
    shape[linear_map.in_axis] = -1
    return channels.reshape(shape)
