"""What training after pruning did to the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.page.wording import seconds, shown, small
from onnxprune.saved_report import SavedReport


@dataclass(frozen=True)
class Refined:
    """A refinement.

    Attributes:
        sentence: what it did.
        facts: (what, its value) of how.
        trials: (learning rate, divergence after a short trial).
    """

    sentence: str
    facts: Sequence[tuple[str, str]]
    trials: Sequence[tuple[str, str]]


def refinement(report: SavedReport) -> Refined | None:
    """The refinement of a report; None without."""
    done = report.refinement
    if done is None:
        return None
    if done.improved:
        sentence = (
            f"The divergence on samples that nothing was fitted on fell from {small(done.before)} "
            f"to {small(done.after)}."
        )
    else:
        sentence = (
            "Nothing improved the divergence on samples that nothing was fitted on, "
            f"{small(done.before)}: the weights stay as recovery made them."
        )
    asked = report.settings.get("refine")
    facts = [
        ("steps", f"{done.steps:,}"),
        ("time", seconds(done.seconds)),
        ("learning rate", f"{done.rate:.3g}"),
        *((f"asked: {name}", shown(value)) for name, value in _items(asked)),
    ]
    trials = [
        (f"{rate:.3g}", small(divergence) if divergence < float("inf") else "gone astray")
        for rate, divergence in sorted(done.trials.items())
    ]
    return Refined(sentence, facts, trials)


def _items(asked: object) -> Sequence[tuple[str, object]]:
    return list(asked.items()) if isinstance(asked, dict) else []
