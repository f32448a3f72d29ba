"""The order in which consumers are refitted on what the ones before them have become.

A consumer can be solved once all weights that its input depends on are final. Consumers that need
nothing of each other share a *stage*: one cut through the network right before the first of them
(see ``segments``). The last linear layer of a residual branch also needs the other branch, whose
error it takes over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from onnxprune.extract import read_by
from onnxprune.linear_map import LinearMap, results
from onnxprune.network import Network
from onnxprune.recurrent_map import RecurrentMap
from onnxprune.segments import forbidden_cuts

Interval = tuple[float, float]
"""A lower and an upper end; infinite where there is none."""


@dataclass(frozen=True)
class Site:
    """Where a consumer stands in the execution order.

    Attributes:
        name: the consumer's name.
        place: the number of nodes before it.
        x: the tensor it reads.
        skips: tensors that are added to its output, computed before it.
        active: where the activation of that sum is not constant, if it is somewhere; None where
            nothing is known of it.
    """

    name: str
    place: int
    x: str
    skips: tuple[str, ...]
    active: Interval | None = None


@dataclass(frozen=True)
class Stage:
    """Consumers that can be solved at one cut.

    Attributes:
        cut: the number of nodes before it.
        sites: the consumers.
    """

    cut: int
    sites: tuple[Site, ...]

    @property
    def wanted(self) -> set[str]:
        """The tensors that solving them needs."""
        return {tensor for site in self.sites for tensor in (site.x, *site.skips)}


def stages_of(model: onnx.ModelProto, network: Network, changed: Iterable[str]) -> list[Stage]:
    """The stages of a network some of whose weights change.

    Consumers that neither read nor are added to anything that changes are left out. So is one
    whose weights are used by several nodes, or whose input its own node makes: it cannot be solved
    before its input is final. And so is one that reads what has no known extents, or where a
    sequence or an optional is alive, which cannot wait at a cut.

    Args:
        model: the network at full size, sorted; its nodes bear the names of ``network``'s.
        network: the network.
        changed: names of the initializers that hold something else.
    """
    born = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
    moved = downstream(model, changed)
    forbidden = forbidden_cuts(model)
    stages: list[Stage] = []
    for site in _sites(model, network, born):
        if moved.isdisjoint((site.x, *site.skips)):
            continue
        last = max(born.get(tensor, -1) for tensor in (site.x, *site.skips))
        if stages and last < stages[-1].cut:
            stages[-1] = Stage(stages[-1].cut, (*stages[-1].sites, site))
            continue
        cuts = (cut for cut in range(site.place, last, -1) if cut not in forbidden)
        cut = next(cuts, None)
        if cut is not None:
            stages.append(Stage(cut, (site,)))
    return stages


def _sites(model: onnx.ModelProto, network: Network, born: dict[str, int]) -> Iterator[Site]:
    """The consumers that can be solved in order, in order."""
    outside = results(network.graph)
    places = {node.name: place for place, node in enumerate(model.graph.node)}
    found = []
    for name, linear_map in network.consumers.items():
        place = places[linear_map.node.name]
        if len(linear_map.sharers) > 1 or born.get(linear_map.x.name, -1) >= place:
            continue
        if not network.channels(linear_map.x, linear_map.x_axis).size:
            continue
        behind = _Behind.of(linear_map, outside)
        skips = [skip for skip in behind.added if born.get(skip, -1) < place]
        active = behind.active if len(skips) == len(behind.added) else None
        found.append(Site(name, place, linear_map.x.name, tuple(skips), active))
    yield from sorted(found, key=lambda site: site.place)


@dataclass(frozen=True)
class _Behind:
    """What is done with a map's output before anything else.

    Attributes:
        added: the tensors that are added to it.
        active: see ``Site``.
    """

    added: tuple[str, ...] = ()
    active: Interval | None = None

    @classmethod
    def of(cls, linear_map: LinearMap, outside: set[int]) -> _Behind:
        """Follows sums as long as nobody else reads them."""
        if isinstance(linear_map, RecurrentMap):
            return cls()  # what its node makes is not what it makes
        added: list[str] = []
        shifted = False
        tensor = linear_map.y
        while len(tensor.outputs) == 1 and id(tensor) not in outside:
            (node,) = tensor.outputs
            if node.op != "Add" or node.inputs[0] is node.inputs[1]:
                known = not shifted and node.inputs[0] is tensor
                return cls(tuple(added), active_interval(node) if known else None)
            other = node.inputs[1] if node.inputs[0] is tensor else node.inputs[0]
            if isinstance(other, gs.Constant):
                shifted = True
            else:
                added.append(str(other.name))
            tensor = node.outputs[0]
        return cls(tuple(added))


def active_interval(node: gs.Node) -> Interval | None:
    """Where an activation is not constant; None for any but Relu and Clip by constants."""
    if node.op == "Relu":
        return 0.0, math.inf
    if node.op != "Clip":
        return None
    limits = [-math.inf, math.inf]
    for place, bound in enumerate(node.inputs[1:]):
        if isinstance(bound, gs.Constant) and bound.values.size == 1:  # some write one as [6]
            limits[place] = float(bound.values.item())
        elif not bound.is_empty():
            return None
    low, high = limits
    return (low, high) if low < high else None


def downstream(model: onnx.ModelProto, changed: Iterable[str]) -> set[str]:
    """The tensors that depend on initializers that are changed, and those themselves."""
    moved = set(changed)
    for node in model.graph.node:
        if not moved.isdisjoint(read_by(node)):
            moved.update(node.output)
    return moved
