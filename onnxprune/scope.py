"""What of a network may be cut, and how far; known before any sample is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.alignment import Align, allowed_counts, useful_counts
from onnxprune.allocation import Bound, Costs, GroupChoice
from onnxprune.arrays import Array, IndexArray
from onnxprune.budget import require_reachable
from onnxprune.errors import UnsupportedModelError
from onnxprune.network import ChannelGroup, Network
from onnxprune.options import Options


@dataclass(frozen=True)
class Scope:
    """The groups of a network that may be cut.

    Attributes:
        network: the network.
        groups: the groups that may be cut.
        allowed: group name -> counts it may keep, ascending; the last is its size.
    """

    network: Network
    groups: Sequence[ChannelGroup]
    allowed: Mapping[str, IndexArray]

    @classmethod
    def of(cls, network: Network, groups: Sequence[ChannelGroup], align: Align) -> Scope:
        """The scope of these groups under an alignment."""
        return cls(network, groups, {g.name: allowed_counts(g, network, align) for g in groups})

    @property
    def sizes(self) -> IndexArray:
        """Full counts of all groups of the network, shape (network.groups,)."""
        return np.array([group.size for group in self.network.groups], np.int64)

    @property
    def places(self) -> IndexArray:
        """Where among all groups of the network those stand that may be cut."""
        names = {group.name for group in self.groups}
        return np.array([i for i, g in enumerate(self.network.groups) if g.name in names], np.int64)

    @property
    def floors(self) -> IndexArray:
        """The smallest counts of the groups that may be cut, shape (groups,)."""
        return np.array([self.allowed[group.name][0] for group in self.groups], np.int64)

    def counts(self, kept: Mapping[str, int]) -> IndexArray:
        """Counts of all groups of the network, shape (network.groups,); those not given whole."""
        return np.array([kept.get(g.name, g.size) for g in self.network.groups], np.int64)

    def restricted(self, bound: Bound) -> Bound:
        """A bound as a function of the counts of the groups that may be cut, the others whole."""
        places, sizes, cost = self.places, self.sizes, bound.cost

        def of_selected(counts: Array) -> Array:
            full = np.tile(sizes, (*counts.shape[:-1], 1))
            full[..., places] = counts
            return cost(full)

        selected: Costs = of_selected
        return replace(bound, cost=selected)

    def useful(self, bound: Bound) -> dict[str, IndexArray]:
        """Group name -> the allowed counts that are worth having where only this is bounded."""
        names = [group.name for group in self.groups]
        allowed = [self.allowed[name] for name in names]
        useful = useful_counts(self.restricted(bound).cost, allowed)
        return dict(zip(names, useful, strict=True))

    def require_reachable(self, bounds: Sequence[Bound]) -> None:
        """Raise TargetError if a bound fails with every group at its smallest count."""
        choices = []
        for group in self.groups:
            allowed = self.allowed[group.name]
            unknown = np.zeros(allowed.size)
            choices.append(GroupChoice(group.name, allowed, unknown, unknown))
        require_reachable(choices, [self.restricted(bound) for bound in bounds])


def prunable_groups(network: Network, options: Options) -> list[ChannelGroup]:
    """The groups of a network that the options let be cut.

    Raises:
        UnsupportedModelError: there are none; the message says why.
    """
    wide = [group for group in network.groups if group.size > group.part_count]
    chosen = [g for g in wide if options.selects((g.name, *g.producers))]
    if chosen:
        return chosen
    if wide:
        names = [f"'{group.name}'" for group in wide[:5]] + ["..."] * (len(wide) > 5)
        raise UnsupportedModelError(
            f"--include and --exclude leave none of the channel groups: {', '.join(names)}"
        )
    reasons = "; ".join(f"'{f.producer}': {f.reason}" for f in network.frozen[:5])
    why = reasons or "it has no Conv, ConvTranspose, Gemm, MatMul or recurrent layer"
    raise UnsupportedModelError(f"nothing in the model can be pruned ({why})")
