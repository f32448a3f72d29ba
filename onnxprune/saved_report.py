"""The record of a run read back, and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import ReportError
from onnxprune.refinement import Refinement
from onnxprune.report_parts import (
    Footprint,
    FrozenReport,
    GroupReport,
    LayerReport,
    MetricReport,
    Run,
    SectionReport,
)
from onnxprune.saved_parts import (
    SavedOutput,
    read_check,
    read_footprint,
    read_frozen,
    read_group,
    read_layer,
    read_metric,
    read_output,
    read_refinement,
    read_run,
    read_section,
)
from onnxprune.saved_values import amount, maybe, texts, whole
from onnxprune.verdict import Check

HINT = "give the file that a run wrote with --report"
WORD_SETTINGS = ("method", "criterion", "order", "moments", "allocation", "recovery")
LEVEL_SETTINGS = ("cutoff", "information")
_UNFIT = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class SavedReport:
    """A report as its JSON values have it; see ``report.Report``.

    Attributes:
        settings: what was asked for: the targets, ``WORD_SETTINGS`` and ``LEVEL_SETTINGS`` are
            checked, the others are as they were found.
        run: the command, the models, date and machine.
        samples: what samples were used for -> how many.
        before: the original model.
        after: the pruned model.
        outputs: distance of every output from the original's.
        targets: every target beside what was measured.
        metric: the user's metric; None without one.
        share: the largest share of what its channels carry that any group is left without; None
            unless the allocation goes by it.
        sections: the residual sections that were dropped.
        groups: the channel groups in the network's order.
        layers: the layers in the network's order.
        frozen: layers with channels that could not be cut.
        notes: things the user should know.
        refinement: what training did; None without.
    """

    settings: Mapping[str, Any]
    run: Run
    samples: Mapping[str, int]
    before: Footprint
    after: Footprint
    outputs: Sequence[SavedOutput]
    targets: Sequence[Check]
    metric: MetricReport | None
    share: float | None
    sections: Sequence[SectionReport]
    groups: Sequence[GroupReport]
    layers: Sequence[LayerReport]
    frozen: Sequence[FrozenReport]
    notes: Sequence[str]
    refinement: Refinement | None

    @property
    def macs(self) -> float:
        """Share of the multiply-accumulates that is left."""
        return _left(self.before.macs, self.after.macs)

    @property
    def params(self) -> float:
        """Share of the parameters that is left."""
        return _left(self.before.params, self.after.params)

    @classmethod
    def load(cls, path: str | Path) -> SavedReport:
        """Read a report.

        Raises:
            ReportError: the file is not a report, or not one that this version reads.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            return cls.of(json.loads(text, parse_constant=_refuse))
        except (OSError, ValueError, RecursionError) as error:
            raise ReportError(f"{path}: not readable as JSON ({error}); {HINT}") from error
        except ReportError as error:
            raise ReportError(f"{path}: {error}") from error

    @classmethod
    def of(cls, record: Any) -> SavedReport:
        """A report of its JSON values, as ``Report.to_dict`` makes them.

        Raises:
            ReportError: they are not a report's, or of one that this version does not read.
        """
        if not isinstance(record, dict) or not {"settings", "groups"} <= set(record):
            raise ReportError(f"not a report of onnxprune; {HINT}")
        try:
            return cls._of(record)
        except _UNFIT as error:
            raise ReportError(
                f"not a report that this version reads ({type(error).__name__}: {error}); "
                f"run again with --report"
            ) from error

    @classmethod
    def _of(cls, record: Mapping[str, Any]) -> SavedReport:
        share, metric, refinement = (record[name] for name in ("share", "metric", "refinement"))
        return cls(
            settings=_settings(record["settings"]),
            run=read_run(record["run"]),
            samples={str(use): whole(count) for use, count in record["samples"].items()},
            before=read_footprint(record["before"]),
            after=read_footprint(record["after"]),
            outputs=tuple(map(read_output, record["outputs"])),
            targets=tuple(map(read_check, record["targets"])),
            metric=None if metric is None else read_metric(metric),
            share=None if share is None else amount(share),
            sections=tuple(map(read_section, record["sections"])),
            groups=tuple(map(read_group, record["groups"])),
            layers=tuple(map(read_layer, record["layers"])),
            frozen=tuple(map(read_frozen, record["frozen"])),
            notes=texts(record["notes"]),
            refinement=None if refinement is None else read_refinement(refinement),
        )


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: str(given[name]) for name in WORD_SETTINGS}
    levels = {name: maybe(given[name]) for name in LEVEL_SETTINGS}
    return {**given, "target": texts(given["target"]), **words, **levels}


def _left(before: int, after: int) -> float:
    """The share of a cost that is left; all of it where there was none."""
    return after / before if before else 1.0


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
