"""One record of a run; the table, the JSON and the page are views of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.comparison import OutputDistance
from onnxprune.refinement import Refinement
from onnxprune.replacing import explained, replacing
from onnxprune.report_parts import (
    Footprint,
    FrozenReport,
    GroupReport,
    LayerReport,
    MetricReport,
    Run,
    SectionReport,
)
from onnxprune.report_table import channel_lines, cost_lines, output_lines
from onnxprune.verdict import Check, table


@dataclass(frozen=True)
class Report:
    """Everything about a run.

    Attributes:
        settings: what was asked for, and the versions that did it.
        run: the command, the models, date and machine.
        samples: samples used to fit, to tune, to choose refined weights, and to report.
        before: the original model.
        after: the pruned model.
        outputs: distance of every output from the original's on the held-out samples.
        targets: every target beside what was measured on the pruned model.
        metric: the user's metric; None without one.
        share: the largest share of what its channels carry that any group is left without, where
            the allocation goes by it: the cut-off p that was reached, or 1 - tau.
        sections: the residual sections that were dropped.
        groups: every group that could be cut and did not go with one of them.
        layers: every layer that makes channels, in the network's order.
        frozen: producers with frozen channels, those with most MACs first.
        notes: things the user should know, with advice.
        refinement: what was done to the weights after pruning; None without.
    """

    settings: dict[str, Any]
    run: Run
    samples: dict[str, int]
    before: Footprint
    after: Footprint
    outputs: Sequence[OutputDistance]
    targets: Sequence[Check]
    metric: MetricReport | None
    share: float | None
    sections: Sequence[SectionReport]
    groups: Sequence[GroupReport]
    layers: Sequence[LayerReport]
    frozen: Sequence[FrozenReport]
    notes: Sequence[str]
    refinement: Refinement | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values; what is not finite is null."""
        record: dict[str, Any] = _finite(
            {
                "settings": self.settings,
                "run": vars(self.run),
                "samples": self.samples,
                "before": self.before.to_dict(),
                "after": self.after.to_dict(),
                "outputs": [output.to_dict() for output in self.outputs],
                "targets": [
                    {
                        "target": str(c.target),
                        "limit": c.limit,
                        "reached": c.reached,
                        "original": c.full if c.target.is_cost else None,
                        "holds": c.holds,
                    }
                    for c in self.targets
                ],
                "metric": None if self.metric is None else vars(self.metric),
                "share": self.share,
                "sections": [section.to_dict() for section in self.sections],
                "groups": [group.to_dict() for group in self.groups],
                "layers": [vars(layer) for layer in self.layers],
                "frozen": [vars(f) for f in self.frozen],
                "refinement": None if self.refinement is None else self.refinement.to_dict(),
                "notes": list(self.notes),
            }
        )
        return record

    def save(self, path: str | Path) -> None:
        """Write the record as JSON.

        Raises:
            OnnxPruneError: it cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        with replacing(Path(path)) as temporary, explained(Path(path)):
            temporary.write_text(text + "\n", encoding="utf-8")

    def table(self) -> str:
        """The record for a terminal: before and after, output error, what stayed whole."""
        asked = [*table(self.targets), ""] if self.targets else []
        outputs = output_lines(self.outputs, self.metric, self.refinement)
        channels = channel_lines(self.groups, self.sections, self.frozen)
        notes = [f"note: {note}" for note in self.notes]
        costs = cost_lines(self.before, self.after)
        return "\n".join([*costs, "", *asked, *outputs, "", *channels, *notes])

    def called(self, command: str) -> Report:
        """The same of a run that was started by a command, given as it was typed."""
        return replace(self, run=replace(self.run, command=command))


def _finite(value: Any) -> Any:
    """JSON values, with None in the place of what is no number: trials may overflow."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
