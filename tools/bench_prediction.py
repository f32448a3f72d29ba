"""Predicted against measured divergence of whole plans.

    python tools/bench_prediction.py [--network NAME ...] [--table] [--plot]

A plan's divergence, of softened scores as in trials, is predicted as the sum of its groups' damage
laws at the counts it chose, as the allocation minimises it, and measured on the finished model: on
train images that nothing was fitted to or chosen on. Plans come from three allocations at five
budgets; all are priced by the laws of the measured one, since only a prediction that also ranks
plans it did not choose is worth
minimising. Rows that are in docs/results/prediction.jsonl already are skipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measurements import record, recorded
from scipy.stats import spearmanr
from trained import NETWORKS, SHARED

from onnxprune import Options, Pruner, Target
from onnxprune.arrays import Array
from onnxprune.comparison import TEMPERATURE, kl_divergence
from onnxprune.report import Report
from onnxprune.runtime import Session

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
ROWS = RESULTS / "prediction.jsonl"
SUBJECTS = ("resnet20_cifar10", "resnet56_cifar10")
FRACTIONS = (0.8, 0.65, 0.5, 0.35, 0.25)
MEASURED = "sensitivity"
ALLOCATIONS = {MEASURED: "least damage", "error": "equal error", "uniform": "uniform"}
"""Allocations whose plans are predicted, and how tables call them."""

CALIBRATION, UNSEEN = 1000, 1000
"""The first train images calibrate, the next measure."""

BATCH = 100
COLOURS = {"sensitivity": "#1f6fb4", "error": "#ff7f0e", "uniform": "#8f8f8f"}
MARKERS = {"resnet20_cifar10": "o", "resnet56_cifar10": "^"}

Row = dict[str, Any]
Prices = dict[str, dict[int, float]]


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the tables or draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=SUBJECTS)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", action="store_true", help="only draw it")
    given = parser.parse_args(words)
    if given.plot:
        draw(recorded(ROWS), RESULTS / "prediction.svg")
        return
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks and their images")
        for name in given.network or SUBJECTS:
            for row in measured(name, {key_of(row) for row in recorded(ROWS)}):
                record(ROWS, row)
    print(table(recorded(ROWS)))


def key_of(row: Row) -> tuple[Any, ...]:
    """What tells rows apart."""
    return row["network"], row["allocation"], row["macs_target"]


def measured(name: str, done: set[tuple[Any, ...]]) -> Iterator[Row]:
    """The rows of a network that are not there yet."""
    jobs = {
        allocation: [f for f in FRACTIONS if (name, allocation, f) not in done]
        for allocation in ALLOCATIONS
    }
    if not any(jobs.values()):
        return
    subject = Subject(name)
    prices = prices_of(subject.pruner(MEASURED).prune([Target("macs", FRACTIONS[0])]).report)
    for allocation, fractions in jobs.items():
        pruner = subject.pruner(allocation) if fractions else None
        for fraction in fractions:
            assert pruner is not None
            result = pruner.prune([Target("macs", fraction)])
            counts = {group.name: len(group.keep) for group in result.report.groups}
            (output,) = result.report.outputs
            yield {
                "network": name,
                "allocation": allocation,
                "macs_target": fraction,
                "macs": round(result.report.after.macs / result.report.before.macs, 4),
                "predicted": predicted(prices, counts),
                "measured": subject.divergence(result.model),
                "held_out": output.divergence,
                "calibration_images": CALIBRATION,
                "unseen_images": UNSEEN,
            }


class Subject:
    """A network with images to calibrate on, and others to measure on.

    Args:
        name: of the network.
    """

    def __init__(self, name: str) -> None:
        network = NETWORKS[name]
        pixels, _ = network.images("train", CALIBRATION + UNSEEN)
        self.model = network.model
        self._calibration = network.inputs(pixels[:CALIBRATION])
        self._unseen = network.inputs(pixels[CALIBRATION:])
        self._scores = self.scores(self.model)
        self._pruners: dict[str, Pruner] = {}

    def pruner(self, allocation: str) -> Pruner:
        """The network studied under an allocation."""
        if allocation not in self._pruners:
            options = Options(allocation=allocation, latency=False)
            pruner = Pruner(self.model, {"input": self._calibration}, options)
            self._pruners = {allocation: pruner}  # of one at a time, for the memory
        return self._pruners[allocation]

    def scores(self, model: onnx.ModelProto) -> Array:
        """Class scores of the unseen images, shape (images, classes)."""
        session = Session(model, threads=1)
        starts = range(0, len(self._unseen), BATCH)
        batches = (self._unseen[start : start + BATCH] for start in starts)
        return np.concatenate([session.run({"input": batch})[0] for batch in batches])

    def divergence(self, pruned: onnx.ModelProto) -> float:
        """Mean divergence of softened scores of a pruned model on the unseen images."""
        return float(kl_divergence(self._scores, self.scores(pruned), TEMPERATURE).mean())


def prices_of(report: Report) -> Prices:
    """Group name -> count -> the divergence its damage law predicts, for every allowed count."""
    return {
        group.name: {p.count: p.divergence for p in group.curve if p.divergence is not None}
        for group in report.groups
    }


def predicted(prices: Prices, counts: Mapping[str, int]) -> float:
    """The divergence predicted for a whole plan: the groups' own, added up."""
    return sum(prices[name][count] for name, count in counts.items())


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row for each network and budget, then the correlations of each network."""
    names = [name for name in ALLOCATIONS if any(row["allocation"] == name for row in rows)]
    lines = [
        f"| network | MACs | {' | '.join(ALLOCATIONS[name] for name in names)} |",
        f"|---|---:|{'---:|' * len(names)}",
    ]
    found = {key_of(row): row for row in rows}
    networks = list(dict.fromkeys(row["network"] for row in rows))
    for network in networks:
        for fraction in FRACTIONS:
            own = [found.get((network, name, fraction)) for name in names]
            cells = [f"{r['predicted']:.3f} / {r['measured']:.3f}" if r else "" for r in own]
            lines.append(f"| {network} | {fraction:.0%} | {' | '.join(cells)} |")
    ratio = "measured / predicted, median | least | most"
    lines += [
        "",
        f"| network | plans | rank correlation | pairs of a budget in order | {ratio} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for network in networks:
        own = [row for row in rows if row["network"] == network]
        pairs = np.array([(row["predicted"], row["measured"]) for row in own])
        rank = spearmanr(pairs[:, 0], pairs[:, 1]).statistic
        times = pairs[:, 1] / pairs[:, 0]
        spread = f"{np.median(times):.2f} | {times.min():.2f} | {times.max():.2f}"
        right, pairs_seen = in_order(own)
        lines.append(
            f"| {network} | {len(own)} | {rank:.2f} | {right} of {pairs_seen} | {spread} |"
        )
    return "\n".join(lines)


def in_order(rows: Sequence[Row]) -> tuple[int, int]:
    """Pairs of plans of one budget that the prediction orders as the measurement does, of how many.

    The correlation over all budgets is high for any prediction that grows as MACs fall; choosing
    among plans of one budget is what the prediction is for.
    """
    pairs = [(a, b) for a, b in combinations(rows, 2) if a["macs_target"] == b["macs_target"]]
    right = [(a["predicted"] < b["predicted"]) == (a["measured"] < b["measured"]) for a, b in pairs]
    return sum(right), len(right)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Measured over predicted divergence of every plan, both in logarithms, and the identity."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # the same file for the same numbers
    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    for network, allocation in dict.fromkeys((r["network"], r["allocation"]) for r in rows):
        own = [r for r in rows if (r["network"], r["allocation"]) == (network, allocation)]
        axes.plot(
            [row["predicted"] for row in own],
            [row["measured"] for row in own],
            linestyle="none",
            marker=MARKERS[network],
            color=COLOURS[allocation],
            label=f"{network}, {ALLOCATIONS[allocation]}",
        )
    values = [row[kind] for row in rows for kind in ("predicted", "measured")]
    ends = [min(values) / 1.2, max(values) * 1.2]
    axes.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="predicted divergence, softened scores")
    axes.set_ylabel("measured divergence, softened scores")
    axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
