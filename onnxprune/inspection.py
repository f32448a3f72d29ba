"""One record of what can be pruned in a model and what cannot; the table is a view of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from onnxprune.calibration.input_spec import format_shape
from onnxprune.extents import Extents
from onnxprune.metadata import PREFIX
from onnxprune.tables import columns

NAMES_SHOWN = 2
"""Names that stand in one cell of the table; the record has them all."""
OF_ONE_NODE = re.compile(r" ?\('[^']*'\)| (?:of )?'[^']*'|^'[^']*' ")
"""The part of a reason that names a node or a tensor."""


@dataclass(frozen=True)
class GroupRow:
    """A channel group and what depends on it.

    Attributes:
        name: the group.
        channels: how many channels it has.
        parts: how many parts keep equal counts; a group of one channel per part stays whole.
        producers: the layers that make the channels.
        consumers: the layers that read them, and the products of activations that sum over them.
        macs_share: share of the network's MACs that these layers take. Neighbouring groups share
            layers, so the shares of all groups exceed the whole.
        params_share: the same for the parameters.
    """

    name: str
    channels: int
    parts: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    macs_share: float
    params_share: float


@dataclass(frozen=True)
class FrozenRow:
    """A layer whose outputs cannot all be cut, and what that locks.

    Attributes:
        name: the layer.
        frozen: how many of its channels are frozen.
        channels: how many it makes; 0 where that is not known.
        reason: why.
        macs_share: share of the network's MACs that make the frozen channels.
        params_share: the same for the parameters.
    """

    name: str
    frozen: int
    channels: int
    reason: str
    macs_share: float
    params_share: float


@dataclass(frozen=True)
class SectionRow:
    """A residual section that can be dropped, and what goes with it.

    Attributes:
        name: the section: the node that adds its branch to what skips it.
        layers: the nodes that go.
        inputs: the activations that its branch reads.
        macs_share: share of the network's MACs that the branch takes; that of a section inside it
            is a part of it.
        params_share: the same for the parameters.
    """

    name: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    macs_share: float
    params_share: float


@dataclass(frozen=True)
class FrozenSectionRow:
    """A sum of a branch and what skips it that cannot do without the branch, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ReasonRow:
    """A reason, without the names of nodes, and what it locks in all.

    Attributes:
        reason: why.
        producers: how many layers it holds.
        channels: how many of their channels.
        macs_share: share of the network's MACs that make these channels.
        params_share: the same for the parameters.
    """

    reason: str
    producers: int
    channels: int
    macs_share: float
    params_share: float


@dataclass(frozen=True)
class Inspection:
    """What can be pruned in a model and what cannot.

    Attributes:
        inputs: the shapes for which MACs are counted; None for an extent that is not known.
        macs: multiply-accumulates of convolutions, Gemm, MatMul and recurrent layers.
        params: floating-point parameters of the model as it was read. Shares are those of its
            canonical form, in which BatchNormalization is folded.
        prunable_macs_share: share of the MACs in layers that make or read channels that can be
            cut, each layer counted once.
        groups: the channel groups, those with most MACs first.
        frozen: the layers with frozen channels, those that lock most MACs first.
        sections: the residual sections that can be dropped, those with most MACs first.
        frozen_sections: those that cannot.
        notes: what the figures leave out, with advice.
        provenance: what the model says of the prunings that made it, the oldest first; see
            ``metadata``.
    """

    inputs: Mapping[str, Extents]
    macs: int
    params: int
    prunable_macs_share: float
    groups: Sequence[GroupRow]
    frozen: Sequence[FrozenRow]
    sections: Sequence[SectionRow]
    frozen_sections: Sequence[FrozenSectionRow]
    notes: Sequence[str]
    provenance: Sequence[Mapping[str, str]] = ()

    @property
    def reasons(self) -> list[ReasonRow]:
        """The frozen layers summed by reason, the one that locks most MACs first."""
        alike: dict[str, list[FrozenRow]] = {}
        for row in self.frozen:
            alike.setdefault(OF_ONE_NODE.sub("", row.reason), []).append(row)
        return heaviest_first(
            ReasonRow(
                reason,
                len(rows),
                sum(row.frozen for row in rows),
                sum(row.macs_share for row in rows),
                sum(row.params_share for row in rows),
            )
            for reason, rows in alike.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self) | {"reasons": [asdict(row) for row in self.reasons]}

    def table(self) -> str:
        """The record for a terminal."""
        parts = [
            _totals(self),
            _provenance(self),
            _groups(self),
            _sections(self),
            _reasons(self),
            _frozen(self),
            _notes(self),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts if lines)


Row = TypeVar("Row", GroupRow, FrozenRow, ReasonRow, SectionRow)


def heaviest_first(rows: Iterable[Row]) -> list[Row]:
    """Rows by the MACs they take or lock, then by the parameters, then as they were."""
    return sorted(rows, key=lambda row: (-row.macs_share, -row.params_share))


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f", + {more}" if more > 0 else "")


def _totals(record: Inspection) -> list[str]:
    inputs = ", ".join(f"{name} {format_shape(shape)}" for name, shape in record.inputs.items())
    channels = sum(row.channels for row in record.groups)
    within = f"{record.prunable_macs_share:.1%} of the MACs are in layers that make or read them"
    return [
        f"MACs    {record.macs:,} for {inputs or 'no input'}",
        f"params  {record.params:,}",
        f"groups  {len(record.groups)} with {channels:,} channels; {within}",
    ]


def _provenance(record: Inspection) -> list[str]:
    lines = []
    for number, said in enumerate(record.provenance, start=1):
        rows = [(key.removeprefix(PREFIX), value) for key, value in said.items()]
        lines += [f"pruned before ({number} of {len(record.provenance)}):"]
        lines += [f"  {line}" for line in columns(rows, numbers=0)]
    return lines


def _groups(record: Inspection) -> list[str]:
    if not record.groups:
        return ["no channel groups: nothing can be pruned"]
    rows = [
        (*_numbers(row, row.channels, row.parts), row.name, few(row.producers), few(row.consumers))
        for row in record.groups
    ]
    header = ("MACs", "params", "channels", "parts", "group", "made by", "read by")
    return columns([header, *rows], numbers=4)


def _sections(record: Inspection) -> list[str]:
    rows = [(*_numbers(row, len(row.layers)), row.name, few(row.inputs)) for row in record.sections]
    header = ("MACs", "params", "nodes", "section that can be dropped", "reads")
    lines = columns([header, *rows], numbers=3) if rows else []
    return lines + [f"not dropped: {row.name}: {row.reason}" for row in record.frozen_sections]


def _reasons(record: Inspection) -> list[str]:
    rows = [(*_numbers(row, row.producers, row.channels), row.reason) for row in record.reasons]
    header = ("MACs", "params", "layers", "channels", "frozen because")
    return columns([header, *rows], numbers=4) if rows else []


def _frozen(record: Inspection) -> list[str]:
    heavy = [row for row in record.frozen if row.macs_share or row.params_share]
    rows = [
        (
            *_numbers(row, f"{row.frozen}/{row.channels}" if row.channels else "-"),
            row.name,
            row.reason,
        )
        for row in heavy
    ]
    lines = columns([("MACs", "params", "channels", "frozen layer", "reason"), *rows], numbers=3)
    light = len(record.frozen) - len(heavy)
    more = [f"without MACs and parameters: {light} more; --json lists them"] if light else []
    return lines * bool(rows) + more


def _notes(record: Inspection) -> list[str]:
    return [f"note: {note}" for note in record.notes]


def _numbers(row: GroupRow | FrozenRow | ReasonRow | SectionRow, *counts: object) -> list[str]:
    return [f"{row.macs_share:.1%}", f"{row.params_share:.1%}", *map(str, counts)]
