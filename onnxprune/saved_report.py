"""What a saved report says of its groups, read back and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.criteria.spectra import Spectrum
from onnxprune.errors import ReportError
from onnxprune.report import GroupReport, Price

HINT = "give the file that a run wrote with --report"
WORD_SETTINGS = ("method", "criterion", "order", "moments", "allocation", "recovery")
LEVEL_SETTINGS = ("cutoff", "information")
_UNFIT = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class SavedReport:
    """The parts of a report that are about channel groups.

    Attributes:
        settings: what was asked for: the targets, ``WORD_SETTINGS`` and ``LEVEL_SETTINGS``.
        macs: share of the multiply-accumulates that is left.
        params: share of the parameters that is left.
        share: the largest share of what its channels carry that any group is left without; None
            unless the allocation goes by it.
        groups: the channel groups in the network's order; at least one.
    """

    settings: Mapping[str, Any]
    macs: float
    params: float
    share: float | None
    groups: Sequence[GroupReport]

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
        """The parts of a report's JSON values, as ``Report.to_dict`` makes them.

        Raises:
            ReportError: they are not a report's, or of one that this version does not read.
        """
        if not isinstance(record, dict) or not {"settings", "groups"} <= set(record):
            raise ReportError(f"not a report of onnxprune; {HINT}")
        if not record["groups"]:
            raise ReportError("the report has no channel groups: there is nothing to plot")
        try:
            share = record["share"]
            return cls(
                settings=_settings(record["settings"]),
                macs=_left(record, "macs"),
                params=_left(record, "params"),
                share=None if share is None else _amount(share),
                groups=tuple(_group(group) for group in record["groups"]),
            )
        except _UNFIT as error:
            raise ReportError(
                f"not a report that this version reads ({type(error).__name__}: {error}); "
                f"run again with --report"
            ) from error


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: str(given[name]) for name in WORD_SETTINGS}
    levels = {name: _maybe(given[name]) for name in LEVEL_SETTINGS}
    return {"target": [str(target) for target in given["target"]], **words, **levels}


def _group(given: Mapping[str, Any]) -> GroupReport:
    name, size, keep = str(given["name"]), int(given["size"]), list(given["keep"])
    if "spectrum" not in given:
        raise ReportError(
            f"group '{name}' has no spectrum: the report is of an older version; run again "
            "with --report"
        )
    spectrum = Spectrum(**{part: _amounts(v) for part, v in dict(given["spectrum"]).items()})
    curve = [
        Price(p["count"], _number(p["error"]), _maybe(p["divergence"])) for p in given["curve"]
    ]
    counts = [price.count for price in curve]
    if not size == len(spectrum.pivots) == len(spectrum.components):
        raise ValueError(f"group '{name}' of {size} channels has a spectrum of other lengths")
    if sorted(set(counts)) != counts or len(keep) not in counts or not 0 < counts[-1] <= size:
        raise ValueError(f"group '{name}': the curve does not price the {len(keep)} channels kept")
    return GroupReport(
        name,
        size,
        keep,
        curve,
        {c: (_maybe(v["error"]), str(v["recovery"])) for c, v in given["consumers"].items()},
        spectrum,
        _maybe(given["residual"]),
    )


def _left(record: Mapping[str, Any], cost: str) -> float:
    """The share of a cost that is left; all of it where there was none."""
    before, after = (_amount(record[when][cost]) for when in ("before", "after"))
    return after / before if before else 1.0


def _amounts(values: Sequence[Any]) -> list[float]:
    return [_amount(value) for value in values]


def _maybe(value: Any) -> float | None:
    return None if value is None else _number(value)


def _amount(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"{value} stands where nothing negative should")
    return number


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} stands where a finite number should")
    return number


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
