"""Where the numbers are from: the command, the versions, the models, the samples, the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxprune.page.wording import count, seconds, shown
from onnxprune.saved_report import SavedReport

USES = {
    "fit": "to fit weights on",
    "tune": "to choose by",
    "choose": "to choose trained weights by",
    "held_out": "held out, for this report",
}
APART = ("target", "versions", "seed", "provider")
"""Settings that are said elsewhere on the page."""


@dataclass(frozen=True)
class Origin:
    """What would make the same run again.

    Attributes:
        command: as it was typed; None if it was called from Python.
        date: when it started, without the offset.
        started: the same, ISO 8601.
        facts: (what, its value).
        digests: (which model, its SHA-256).
        versions: (package, version).
        samples: (use, number).
        settings: (name, value).
    """

    command: str | None
    date: str
    started: str
    facts: Sequence[tuple[str, str]]
    digests: Sequence[tuple[str, str]]
    versions: Sequence[tuple[str, str]]
    samples: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]


def origin(report: SavedReport) -> Origin:
    """Where the numbers of a report are from."""
    run, settings = report.run, report.settings
    versions = settings.get("versions")
    known = versions if isinstance(versions, Mapping) else {}
    return Origin(
        command=run.command,
        date=run.started[:16].replace("T", " "),
        started=run.started,
        facts=[
            ("model", run.model),
            ("started", run.started.replace("T", " ")),
            ("took", seconds(run.seconds)),
            ("seed", shown(settings.get("seed"))),
            ("provider", shown(settings.get("provider"))),
            ("platform", run.platform),
        ],
        digests=list(run.digests.items()),
        versions=[(str(name), str(version)) for name, version in known.items()],
        samples=[(USES.get(use, use), count(number)) for use, number in report.samples.items()],
        settings=[
            (name.replace("_", " "), shown(value))
            for name, value in settings.items()
            if name not in APART
        ],
    )
