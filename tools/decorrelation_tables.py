"""Tables of what ``bench_decorrelation.py`` measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from measurements import Measurement

EPOCH, SECONDS, TRAIN_LOSS, TEST_LOSS, ACCURACY = range(5)
"""Columns of a curve."""


def tables(rows: Sequence[Measurement]) -> str:
    """All of them, in Markdown."""
    parts = {"tuning": tried, "training": levels, "pruning": pruned, "statistics": statistics}
    found = []
    for part, write in parts.items():
        own = [row for row in rows if row["part"] == {"pruning": "training"}.get(part, part)]
        if own:
            found.append(f"### {part}\n\n{write(own)}")
    return "\n\n".join(found)


def tried(rows: Sequence[Measurement]) -> str:
    """Every setting; the best of each method in bold."""
    lines = [
        "| network | method | learning rate | eps | train loss | judged loss | judged, % | s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        own = [r for r in rows if (r["network"], r["method"]) == (row["network"], row["method"])]
        best = row is min(own, key=lambda r: r["judged_loss"] or np.inf)
        rate = f"**{row['rate']:g}**" if best else f"{row['rate']:g}"
        second = "" if row["decorrelation_rate"] is None else f"{row['decorrelation_rate']:g}"
        cells = [row["network"], row["method"], rate, second, f"{row['train_loss']:.3f}"]
        cells += [f"{row['judged_loss']:.3f}", f"{100 * row['judged_accuracy']:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def levels(rows: Sequence[Measurement]) -> str:
    """How long each method takes to the loss and the accuracy that both have reached.

    Of every seed the level is the larger of the two smallest training losses, and the smaller of
    the two largest test accuracies; between epochs curves are straight.
    """
    heads = ["network", "method", "train loss", "test, %", "best, %", "s an epoch"]
    heads += ["equal loss: epochs", "s", "equal accuracy: epochs", "s"]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        methods = list(dict.fromkeys(row["method"] for row in own))
        for method in methods:
            mine = [row for row in own if row["method"] == method]
            curves = [np.array(row["curve"][1:], float) for row in mine]
            cells = [network, method]
            cells.append(mean_of([c[-1, TRAIN_LOSS] for c in curves], "{:.3f}"))
            cells.append(mean_of([100 * c[-1, ACCURACY] for c in curves], "{:.1f}"))
            cells.append(mean_of([100 * c[:, ACCURACY].max() for c in curves], "{:.1f}"))
            cells.append(mean_of([c[-1, SECONDS] / len(c) for c in curves], "{:.1f}"))
            for column, sign in ((TRAIN_LOSS, 1.0), (ACCURACY, -1.0)):
                reached = [time_to(level(own, row["seed"], column, sign), row, column, sign)
                           for row in mine]  # fmt: skip
                cells += [mean_of([r[i] for r in reached], "{:.1f}") for i in (0, 1)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def level(rows: Sequence[Measurement], seed: int, column: int, sign: float) -> float:
    """What every method has reached with a seed: of their best values the worst, times the sign."""
    own = [np.array(row["curve"][1:], float) for row in rows if row["seed"] == seed]
    return max(float((sign * curve[:, column]).min()) for curve in own)


def time_to(wanted: float, row: Measurement, column: int, sign: float) -> tuple[float, float]:
    """Epochs and seconds until a curve first comes down to a level."""
    curve = np.array([[np.nan if v is None else v for v in point] for point in row["curve"]], float)
    values = sign * curve[:, column]
    at = next(i for i in range(1, len(curve)) if values[i] <= wanted)
    before, after = values[at - 1], values[at]
    share = 1.0 if not before > wanted else (before - wanted) / (before - after)
    between = curve[at - 1] + share * (curve[at] - curve[at - 1])
    return float(between[EPOCH]), float(between[SECONDS])


def pruned(rows: Sequence[Measurement]) -> str:
    """Test accuracy of the trained networks pruned by the default engine."""
    return _by_fraction(rows, lambda row: [(row["method"], row["pruned"])])


def statistics(rows: Sequence[Measurement]) -> str:
    """Test accuracy pruned by learnt moments and by those of samples, and the seconds it takes."""
    sources = (("learnt", "by learnt moments"), ("samples", "by samples"))
    accuracies = _by_fraction(
        rows, lambda row: [(f"{row['method']}, {what}", row[name]) for name, what in sources]
    )
    times = [
        f"{row['network']}, {row['method']}: training with the moments {row['seconds']:.0f} s, "
        f"pruning by them {row['learnt_seconds']:.1f} s, by samples {row['samples_seconds']:.1f} s"
        for row in rows
    ]
    return accuracies + "\n\n" + "; ".join(times) + "."


def _by_fraction(
    rows: Sequence[Measurement],
    accuracies: Callable[[Measurement], list[tuple[str, dict[str, float]]]],
) -> str:
    cells: dict[tuple[str, str], list[dict[str, float]]] = {}
    for row in rows:
        for name, own in accuracies(row):
            cells.setdefault((row["network"], name), []).append(own)
    shares = list(next(iter(cells.values()))[0])
    heads = ["trained" if share == "1" else f"{float(share):.0%} MACs" for share in shares]
    lines = [f"| network | | {' | '.join(heads)} |", f"|---|---|{'---:|' * len(heads)}"]
    for (network, name), found in cells.items():
        means = [mean_of([own[share] for own in found], "{:.1f}") for share in shares]
        lines.append(f"| {network} | {name} | {' | '.join(means)} |")
    return "\n".join(lines)


def mean_of(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation over seeds; the mean of one alone."""
    mean = form.format(float(np.mean(values)))
    return mean if len(values) < 2 else f"{mean} ± {form.format(float(np.std(values, ddof=1)))}"
