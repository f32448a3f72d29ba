"""What the page says first: costs before and after, how far outputs moved, what was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from onnxprune.latency import Latency
from onnxprune.page import wording
from onnxprune.page.svg import meter
from onnxprune.saved_parts import SavedOutput
from onnxprune.saved_report import SavedReport
from onnxprune.verdict import Check


@dataclass(frozen=True)
class Card:
    """One figure with what stands behind it.

    Attributes:
        title: what it is.
        figure: the number itself.
        unit: what the number is of, in a word.
        meter: a bar of the share that is left; empty for none.
        lines: (what, its value) of the details.
        remark: what the figure means, in a few words.
    """

    title: str
    figure: str
    unit: str
    meter: Markup
    lines: Sequence[tuple[str, str]]
    remark: str


@dataclass(frozen=True)
class Asked:
    """One target beside what was reached."""

    target: str
    asked: str
    reached: str
    holds: bool


@dataclass(frozen=True)
class Summary:
    """The head of the page.

    Attributes:
        model: what was pruned.
        sentence: what is left of it.
        costs: figures of what it costs.
        effects: figures of what pruning did to its outputs.
        targets: what was asked.
        outputs: how far every output moved, where there are several.
    """

    model: str
    sentence: str
    costs: Sequence[Card]
    effects: Sequence[Card]
    targets: Sequence[Asked]
    outputs: Sequence[SavedOutput]


def summary(report: SavedReport) -> Summary:
    """The head of a report's page."""
    several = len(report.outputs) > 1
    return Summary(
        report.run.model or "model",
        _sentence(report),
        [*_cost_cards(report), *_latency_cards(report)],
        [*_output_cards(report), *_metric_cards(report)],
        [_asked(check) for check in report.targets],
        report.outputs if several else (),
    )


def _sentence(report: SavedReport) -> str:
    kept = sum(len(group.keep) for group in report.groups)
    total = sum(group.size for group in report.groups)
    noun = "group" if len(report.groups) == 1 else "groups"
    channels = f"{kept:,} of {total:,} channels kept in {len(report.groups)} {noun}"
    dropped = len(report.sections)
    gone = f", {dropped} residual section{'s' * (dropped > 1)} dropped" if dropped else ""
    return f"{channels}{gone}"


def _asked(check: Check) -> Asked:
    return Asked(str(check.target), check.asked_text, check.reached_text, check.holds)


def _cost_cards(report: SavedReport) -> list[Card]:
    before, after = report.before, report.after
    return [
        _kept("Parameters", before.params, after.params, wording.count, ("fewer", "more")),
        _kept("MACs", before.macs, after.macs, wording.count, ("fewer", "more")),
        _kept("File size", before.bytes, after.bytes, wording.size, ("smaller", "larger")),
    ]


def _kept(
    title: str,
    before: float,
    after: float,
    say: Callable[[float], str],
    words: tuple[str, str],
) -> Card:
    share = after / before if before else None
    lines = [("before", say(before)), ("after", say(after))]
    bar = Markup("") if share is None else meter(share, "over" if share > 1 else "")
    figure = wording.percent(share)
    return Card(title, figure, "kept", bar, lines, wording.factor(before, after, *words))


def _latency_cards(report: SavedReport) -> list[Card]:
    before, after = report.before.latency, report.after.latency
    if before is None or after is None:
        return []
    card = _kept(
        "Latency, median",
        before.median,
        after.median,
        wording.milliseconds,
        ("faster", "slower"),
    )
    lines = [*card.lines, *_tail("p90", before, after), *_tail("p99", before, after)]
    return [Card(card.title, card.figure, "of the time", card.meter, lines, card.remark)]


def _tail(name: str, before: Latency, after: Latency) -> list[tuple[str, str]]:
    old, new = (wording.milliseconds(getattr(each, name)) for each in (before, after))
    return [(name, f"{old} → {new}")]


def _output_cards(report: SavedReport) -> list[Card]:
    cards = []
    if report.outputs:
        worst = max(report.outputs, key=lambda output: output.relative_error)
        lines = [
            ("output", worst.name),
            ("cosine", f"{worst.cosine:.5f}"),
            ("held-out samples", wording.count(worst.samples)),
        ]
        unit = "of the output that moved most" if len(report.outputs) > 1 else "of the output"
        figure = wording.small(worst.relative_error)
        cards.append(Card("Relative error", figure, unit, Markup(""), lines, ""))
    scored = [o for o in report.outputs if o.agreement is not None]
    if scored:
        least = min(scored, key=lambda output: output.agreement or 0.0)
        lines = [
            ("output", least.name),
            ("divergence", f"{wording.small(least.divergence)} nats"),
            ("held-out samples", wording.count(least.samples)),
        ]
        figure = wording.percent(least.agreement)
        cards.append(Card("Same top class", figure, "of samples", Markup(""), lines, ""))
    return cards


def _metric_cards(report: SavedReport) -> list[Card]:
    if report.metric is None:
        return []
    metric = report.metric
    change = metric.after - metric.before
    lines = [("before", f"{metric.before:.4f}"), ("change", f"{change:+.4f}")]
    return [Card(metric.name, f"{metric.after:.4f}", "after", Markup(""), lines, "")]
