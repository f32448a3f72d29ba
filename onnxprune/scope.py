"""What of a network may be cut, and how far; known before any sample is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxprune.alignment import Align, allowed_counts, useful_counts
from onnxprune.allocation import Bound, Costs, GroupChoice
from onnxprune.arrays import Array, IndexArray
from onnxprune.budget import require_reachable
from onnxprune.errors import UnsupportedModelError
from onnxprune.network import ChannelGroup, Network
from onnxprune.options import Options
from onnxprune.sections import Section


@dataclass(frozen=True)
class Scope:
    """The groups of a network that may be cut.

    Attributes:
        network: the network.
        groups: the groups that may be cut.
        allowed: group name -> counts it may keep, ascending; the last is its size.
        sections: the residual sections that may be dropped. Where counts are asked for, theirs (1,
            or 0 if dropped) follow those of the groups.
    """

    network: Network
    groups: Sequence[ChannelGroup]
    allowed: Mapping[str, IndexArray]
    sections: Sequence[Section] = field(default=(), kw_only=True)

    @classmethod
    def of(
        cls,
        network: Network,
        groups: Sequence[ChannelGroup],
        align: Align,
        sections: Sequence[Section] = (),
    ) -> Scope:
        """The scope of these groups under an alignment, and of these sections."""
        allowed = {g.name: allowed_counts(g, network, align) for g in groups}
        return cls(network, groups, allowed, sections=sections)

    @property
    def sizes(self) -> IndexArray:
        """Full counts of all groups, and 1 for sections; shape (network.groups + sections,)."""
        return self.counts({})

    @property
    def places(self) -> IndexArray:
        """Where among all groups of the network those stand that may be cut."""
        names = {group.name for group in self.groups}
        return np.array([i for i, g in enumerate(self.network.groups) if g.name in names], np.int64)

    @cached_property
    def _inside(self) -> IndexArray:
        """1 where a section holds a group that may be cut, else 0; shape (sections, groups)."""
        held = [[section.holds(group) for group in self.groups] for section in self.sections]
        return np.array(held, np.int64).reshape(len(self.sections), len(self.groups))

    @property
    def floors(self) -> IndexArray:
        """The smallest counts of what may be cut or dropped, shape (groups + sections,)."""
        least = [self.allowed[group.name][0] for group in self.groups]
        return np.array([*least, *(0 for _ in self.sections)], np.int64)

    def counts(self, kept: Mapping[str, int]) -> IndexArray:
        """Counts of all groups of the network, then sections; those not given stay whole.

        Of shape (network.groups + sections,).
        """
        groups = [kept.get(group.name, group.size) for group in self.network.groups]
        return np.array([*groups, *(kept.get(s.name, 1) for s in self.sections)], np.int64)

    def channels(self, counts: Array) -> Array:
        """Channels kept of the groups that may be cut; those inside dropped sections are not.

        Args:
            counts: of all groups of the network, then sections; of shape (..., those).

        Returns:
            Of shape (...).
        """
        groups = len(self.network.groups)
        dropped = counts[..., groups:] == 0
        gone = dropped @ self._inside
        kept: Array = np.where(gone > 0, 0, counts[..., self.places]).sum(axis=-1)
        return kept

    def restricted(self, bound: Bound) -> Bound:
        """A bound as a function of what may be cut or dropped, the other groups whole."""
        sizes, cost = self.sizes, bound.cost
        places = np.append(self.places, np.arange(len(self.network.groups), sizes.size))

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
        allowed += [np.ones(1, np.int64) for _ in self.sections]
        useful = useful_counts(self.restricted(bound).cost, allowed)
        return dict(zip(names, useful, strict=False))

    def require_reachable(self, bounds: Sequence[Bound]) -> None:
        """Raise TargetError if a bound fails with every group at its smallest count."""
        choices = []
        for group in self.groups:
            allowed = self.allowed[group.name]
            unknown = np.zeros(allowed.size)
            choices.append(GroupChoice(group.name, allowed, unknown, unknown))
        stays, lost = np.arange(2), np.zeros(2)
        choices += [GroupChoice(section.name, stays, lost, lost) for section in self.sections]
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
