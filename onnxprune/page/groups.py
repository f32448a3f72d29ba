"""The channel groups: one row each, and behind it curves, spectra and the layers that read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from onnxprune.page.curves import Figure, figures
from onnxprune.page.svg import meter
from onnxprune.page.wording import ranges, small, times
from onnxprune.report_parts import GroupReport
from onnxprune.saved_report import SavedReport

LEVELS = (0.9, 0.99, 0.999)
"""Shares of the variance for which principal components are counted."""


@dataclass(frozen=True)
class Row:
    """One group.

    Attributes:
        at: its place in the network, from 1.
        group: what the record says of it.
        kept: how many channels are left.
        share: the part of them.
        meter: a bar of that.
        words: names by which it can be found.
        figures: its charts.
        components: (share of the variance, principal components that carry it).
        keep: the channels that are left, as ranges; empty if all are.
        consumers: the layers that read it.
        residual: the factor by which trials are off the predicted divergence; None without any.
    """

    at: int
    group: GroupReport
    kept: int
    share: float
    meter: Markup
    words: str
    figures: Sequence[Figure]
    components: Sequence[tuple[str, int]]
    keep: str
    consumers: Sequence[Consumer]
    residual: str | None


@dataclass(frozen=True)
class Consumer:
    """One layer that reads a group: its errors before and after recovery.

    Attributes:
        name: the layer.
        sliced: the error with its old weights.
        error: the error with the recovered ones.
        factor: by what the error became smaller; empty where that is not known.
        recovery: how they were found.
    """

    name: str
    sliced: str
    error: str
    factor: str
    recovery: str


@dataclass(frozen=True)
class Groups:
    """All groups.

    Attributes:
        rows: the groups, in the network's order.
        in_order: whether errors of consumers were measured on what the pruned network feeds them.
        share: the largest share left unexplained in any group; None unless that was bounded.
    """

    rows: Sequence[Row]
    in_order: bool
    share: str | None


def groups(report: SavedReport) -> Groups:
    """The groups of a report's page."""
    rows = [_row(at, group) for at, group in enumerate(report.groups, start=1)]
    share = None if report.share is None else small(report.share)
    return Groups(rows, bool(report.settings.get("sequential")), share)


def _row(at: int, group: GroupReport) -> Row:
    kept = len(group.keep)
    share = kept / group.size
    return Row(
        at,
        group,
        kept,
        share,
        meter(share),
        " ".join([group.name, *group.producers, *group.consumers]).lower(),
        figures(group),
        [(f"{100 * level:g}%", group.spectrum.needed(1 - level)) for level in LEVELS],
        ranges(sorted(group.keep)) if kept < group.size else "",
        [
            Consumer(
                name,
                small(found.sliced),
                small(found.error),
                times(found.sliced / found.error) if found.sliced and found.error else "",
                found.recovery,
            )
            for name, found in group.consumers.items()
        ],
        None if group.residual is None else f"{math.exp(group.residual):.2f}",
    )
