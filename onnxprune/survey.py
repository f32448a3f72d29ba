"""From a model to its inspection: what can be pruned, known before any samples are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import onnx

from onnxprune.arrays import Array
from onnxprune.blame import blamed
from onnxprune.calibration.input_spec import format_shape
from onnxprune.canonical import canonicalise
from onnxprune.cost import CostModel, cost_model, is_parameter, parameter_count
from onnxprune.counts import AxisCounter
from onnxprune.extents import Extents, input_extents
from onnxprune.groups import find_groups
from onnxprune.inspection import (
    FrozenRow,
    FrozenSectionRow,
    GroupRow,
    Inspection,
    SectionRow,
    few,
    heaviest_first,
)
from onnxprune.metadata import records
from onnxprune.network import ChannelGroup, FrozenChannels, Network
from onnxprune.section_search import find_sections

SUBGRAPH_OPS = ("If", "Loop", "Scan")


def survey(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Inspection:
    """What can be pruned in a model, what cannot, and why.

    Args:
        model: the trained model; it is left as it is.
        shapes: input name -> its shape, where the model leaves extents open; the batch is 1 unless
            it is given.

    Raises:
        UnsupportedModelError: the model is quantised, too old, or not valid.
        OnnxPruneError: a shape does not fit the model.
    """
    with blamed(model):
        return _survey(model, shapes or {})


def _survey(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Inspection:
    inputs = input_extents(model, shapes)
    canonical = canonicalise(model)
    network = find_groups(canonical)
    cost = cost_model(network, canonical, inputs)
    share = shares(network, cost, AxisCounter(network).sizes)
    sections = find_sections(network, canonical)
    return Inspection(
        inputs=inputs,
        macs=round(sum(cost.node_macs.values())),
        params=parameter_count(model),
        prunable_macs_share=share(cost.shrinking)[0],
        groups=heaviest_first(_group_row(group, share) for group in network.groups),
        frozen=heaviest_first(_frozen_row(frozen, share) for frozen in network.frozen),
        sections=heaviest_first(
            SectionRow(s.name, s.branch, s.inputs, *share(s.branch)) for s in sections.found
        ),
        frozen_sections=[FrozenSectionRow(s.name, s.reason) for s in sections.frozen],
        notes=_left_out(network, cost, inputs),
        provenance=records(model),
    )


Share = Callable[[Iterable[str]], tuple[float, float]]
"""Names of layers -> their shares of the MACs and of the parameters, each layer counted once."""


def shares(network: Network, cost: CostModel, sizes: Array) -> Share:
    """What tells the shares of layers in a network's costs; ``sizes`` are full counts."""
    macs = sum(cost.node_macs.values()) or 1.0
    params = float(cost.params(sizes)) or 1.0
    held = {
        node.name: sum(math.prod(t.shape) for t in node.inputs if is_parameter(t))
        for node in network.graph.nodes
    }

    def share(names: Iterable[str]) -> tuple[float, float]:
        once = set(names)
        return (
            sum(cost.node_macs.get(name, 0.0) for name in once) / macs,
            sum(held.get(name, 0) for name in once) / params,
        )

    return share


def _layers(group: ChannelGroup) -> tuple[str, ...]:
    return (*group.producers, *group.consumers, *group.contractions)


def _group_row(group: ChannelGroup, share: Share) -> GroupRow:
    return GroupRow(
        group.name,
        group.size,
        group.part_count,
        group.producers,
        (*group.consumers, *group.contractions),
        *share(_layers(group)),
    )


def _frozen_row(frozen: FrozenChannels, share: Share) -> FrozenRow:
    part = frozen.frozen / frozen.size if frozen.size else 1.0
    macs, params = share([frozen.producer])
    return FrozenRow(
        frozen.producer, frozen.frozen, frozen.size, frozen.reason, macs * part, params * part
    )


def _left_out(network: Network, cost: CostModel, inputs: Mapping[str, Extents]) -> list[str]:
    notes = []
    if cost.uncounted:
        open_inputs = [f"{n} {format_shape(s)}" for n, s in inputs.items() if None in s]
        advice = f"; give --shape for {', '.join(open_inputs)}" if open_inputs else ""
        notes.append(
            "layers whose output shapes are not known are counted at one position: "
            f"{len(cost.uncounted)} ({few(cost.uncounted)}){advice}"
        )
    narrow = [group.name for group in network.groups if group.size == group.part_count]
    if narrow:
        notes.append(f"groups with one channel per part stay whole: {len(narrow)} ({few(narrow)})")
    subgraphs = sorted({node.op for node in network.graph.nodes} & set(SUBGRAPH_OPS))
    if subgraphs:
        notes.append(f"what {', '.join(subgraphs)} compute inside is neither cut nor counted")
    return notes
