"""One record of what models cost and do under ever other budgets; table and CSV are its views."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from onnxprune.latency import Latency
from onnxprune.report import Report
from onnxprune.tables import columns

State = Literal["original", "made", "found", "failed"]
"""Of a row: the model itself, made in this run, found from an earlier one, or not to be had."""

CSV_COLUMNS = (
    "budget",
    "state",
    "file",
    "macs",
    "params",
    "bytes",
    "latency_ms_median",
    "latency_ms_p90",
    "macs_kept",
    "params_kept",
    "bytes_kept",
    "latency_kept",
    "relative_error",
    "cosine",
    "top1_agreement",
    "metric",
    "reason",
)


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        budget: its targets in words.
        state: where it comes from.
        file: its name in the folder; empty for the original and for what failed.
        macs: multiply-accumulates for one sample.
        params: floating-point parameters.
        bytes: size of the file.
        latency: measured in turns with all others; None where it was not.
        relative_error: of the output that suffers most, on held-out samples.
        cosine: of that output.
        agreement: share of samples whose top class stays, of the scores that agree least; None
            without scores.
        metric: the user's metric; None without one.
        reason: why there is no model.
    """

    budget: str
    state: State
    file: str = ""
    macs: int | None = None
    params: int | None = None
    bytes: int | None = None
    latency: Latency | None = None
    relative_error: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    metric: float | None = None
    reason: str = ""

    @property
    def is_model(self) -> bool:
        """Whether there is a pruned model."""
        return self.state in ("made", "found")

    @classmethod
    def of(cls, budget: str, file: str, report: Report) -> Point:
        """What a report says of a model that was made."""
        worst = max(report.outputs, key=lambda output: output.relative_error)
        agreements = [o.agreement for o in report.outputs if o.agreement is not None]
        return cls(
            budget,
            "made",
            file,
            report.after.macs,
            report.after.params,
            report.after.bytes,
            None,
            worst.relative_error,
            worst.cosine,
            min(agreements) if agreements else None,
            None if report.metric is None else report.metric.after,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Point:
        """The row that JSON values state.

        Raises:
            KeyError, TypeError, ValueError: they state none.
        """
        latency = given["latency"]
        return cls(**{**given, "latency": None if latency is None else Latency(**latency)})


@dataclass(frozen=True)
class Frontier:
    """Models under several budgets, beside the original.

    Attributes:
        original: the model they were made of; its latency was measured in turns with theirs.
        points: one for each budget, in their order.
        metric: what the user's metric is called; empty without one.
        samples: how many held-out samples error and agreement are measured on.
        settings: what holds for all of them, and the versions that made them.
        notes: things the user should know, with advice.
    """

    original: Point
    points: Sequence[Point]
    metric: str
    samples: int
    settings: dict[str, Any]
    notes: Sequence[str]

    @property
    def failed(self) -> list[Point]:
        """The budgets without a model."""
        return [point for point in self.points if point.state == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {
            "settings": self.settings,
            "held_out": self.samples,
            "metric": self.metric or None,
            "original": self.original.to_dict(),
            "points": [point.to_dict() for point in self.points],
            "notes": list(self.notes),
        }

    def csv(self) -> str:
        """Rows with commas between values: the original, then the budgets."""
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for point in (self.original, *self.points):
            row = point.to_dict() | self._kept(point)
            row |= {"top1_agreement": point.agreement}
            if point.latency is not None:
                row |= {
                    "latency_ms_median": point.latency.median,
                    "latency_ms_p90": point.latency.p90,
                }
            writer.writerow({name: row.get(name) for name in CSV_COLUMNS})
        return text.getvalue()

    def _kept(self, point: Point) -> dict[str, float]:
        """Name of a cost -> what is left of it."""
        full = self.original
        pairs = {name: (getattr(point, name), getattr(full, name)) for name in COUNTED}
        if point.latency is not None and full.latency is not None:
            pairs["latency"] = (point.latency.median, full.latency.median)
        return {
            f"{name}_kept": own / whole
            for name, (own, whole) in pairs.items()
            if own is not None and whole
        }

    def table(self) -> str:
        """The record for a terminal."""
        timed = self.original.latency is not None
        scores = any(point.agreement is not None for point in self.points)
        header = ["MACs", "params", "size", *["latency", ""] * timed, "error"]
        header += ["same class"] * scores + [self.metric and "metric"] * bool(self.metric)
        rows = [[*header, "budget"]]
        for point in (self.original, *self.points):
            if point.state == "failed":
                rows.append(["-"] * len(header) + [f"{point.budget} (failed)"])
                continue
            kept = self._kept(point)
            row = [_share(kept.get(f"{name}_kept")) for name in COUNTED]
            if timed:
                time = point.latency
                row += ["-" if time is None else f"{time.median:.3f} ms"]
                row += [_share(kept.get("latency_kept"))]
            row += ["-" if point.relative_error is None else f"{point.relative_error:.4f}"]
            row += [_share(point.agreement)] * scores
            row += ["-" if point.metric is None else f"{point.metric:.4f}"] * bool(self.metric)
            rows.append([*row, point.budget + " (found)" * (point.state == "found")])
        lines = columns(rows, numbers=len(header))
        lines += [f"metric: {self.metric}"] * bool(self.metric)
        lines += [f"{point.budget}: {point.reason}" for point in self.failed]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


COUNTED = ("macs", "params", "bytes")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
