"""Residual sections as choices of an allocation, and what stands in the place of dropped ones.

A section is a choice between 1, it stays, and 0: its last linear maps then make the mean of what
they made. If it goes, so do the channel groups inside it, and what narrowing them would have done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.allocation import GroupChoice
from onnxprune.arrays import Array, Vector
from onnxprune.network import Network
from onnxprune.options import Options
from onnxprune.plan import Drop, Weights
from onnxprune.recovery import Recovery
from onnxprune.refit import NO_OTHERS, Prior, refit
from onnxprune.section_search import find_sections
from onnxprune.sections import Section, dropped_groups
from onnxprune.study import Study

STAYS = np.array([0, 1])
"""The counts of a section."""


def droppable_sections(
    network: Network, canonical: onnx.ModelProto, options: Options
) -> tuple[Section, ...]:
    """The sections of a network that the options let be dropped.

    A section goes with all its layers: one whose name is excluded holds it.
    """
    if not options.sections or options.composition.allocation != "sensitivity":
        return ()
    found = find_sections(network, canonical).found
    return tuple(s for s in found if options.selects((s.name, *s.branch)))


def dropped(study: Study, counts: Mapping[str, int]) -> list[Section]:
    """The sections that these counts drop: those whose count is 0."""
    return [section for section in study.sections if counts.get(section.name, 1) == 0]


def replacements(study: Study, sections: Iterable[Section]) -> dict[str, tuple[Array, Array]]:
    """Name of every last map of these sections -> zeros, and its mean output as bias."""
    result: dict[str, tuple[Array, Array]] = {}
    for section in sections:
        # a section that lies in another comes first, and the outer one's maps make it zero
        result |= section.replacements(_means(study, section))
    return result


def _means(study: Study, section: Section) -> dict[str, Vector]:
    """E[y] of the last maps, from the constant in their Grams."""
    means = {}
    for name in (linear_map.name for linear_map in section.tail.maps):
        rows = [
            layer.weight @ (layer.gram[:, -1] / layer.gram[-1, -1]) for layer in study.layers[name]
        ]
        means[name] = study.views[name].bias_tensor(rows).astype(np.float64)
    return means


def prior_of(
    study: Study,
    counts: Mapping[str, int],
    recovery: Recovery,
    *,
    others: Mapping[str, Recovery] = NO_OTHERS,
    progress: bool = False,
) -> Prior:
    """One-shot recovery at these counts: the means of what is dropped, weights for the rest.

    Args:
        study: the network.
        counts: of some of the groups and sections; the others stay whole.
        recovery: how a consumer is solved.
        others: consumers that are solved in another way -> how.
        progress: whether to show a bar.
    """
    sections = dropped(study, counts)
    gone = frozenset(node for section in sections for node in section.branch)
    prior = refit(
        {name: view for name, view in study.views.items() if name not in gone},
        study.layers,
        study.survivors(study.keeps(counts)),
        recovery,
        {name: view for name, view in study.contractions.items() if name not in gone},
        others=others,
        progress=progress,
    )
    return replace(prior, emptied=replacements(study, sections), gone=gone)


def with_constants(weights: Weights, study: Study, sections: Iterable[Section]) -> Weights:
    """The weights, and what is added in place of these sections."""
    constants = {}
    for section in sections:
        constant = section.constant(replacements(study, [section]))
        if constant.any():
            constants[section.name] = constant.astype(section.dtype)
    return replace(weights, constants=constants)


def drops(study: Study, counts: Mapping[str, int]) -> tuple[Drop, ...]:
    """The edits of the sections that these counts drop."""
    return tuple(Drop(section.name) for section in dropped(study, counts))


def section_choices(study: Study, damage: Mapping[str, float]) -> list[GroupChoice]:
    """The sections whose damage was measured, as an allocation sees them."""
    return [
        GroupChoice(
            section.name,
            STAYS if section.name in damage else STAYS[1:],
            lost,
            lost,
            inner=tuple(_inside(study, section)),
        )
        for section in study.sections
        for lost in [
            np.array([damage[section.name], 0.0]) if section.name in damage else np.zeros(1)
        ]
    ]


def _inside(study: Study, section: Section) -> Sequence[str]:
    """Names of the groups and sections that go with a section."""
    branch = set(section.branch)
    groups = sorted(dropped_groups([section], study.groups))
    return [*groups, *(other.name for other in study.sections if other.name in branch)]


def settled(study: Study, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts at which all that goes with a dropped section is whole: what it keeps says nothing."""
    gone = {name for section in dropped(study, counts) for name in _inside(study, section)}
    whole = {group.name: group.size for group in study.groups} | dict.fromkeys(
        (section.name for section in study.sections), 1
    )
    return {name: whole[name] if name in gone else count for name, count in counts.items()}
