"""A table of dropping against narrowing at equal cost.

For every residual section of a network: what dropping it alone does to the outputs, and what
narrowing channels anywhere for the same MACs does. Then for shares of the MACs: channels only,
sections only, both, and whether a run would keep that. Calibration takes the first 1 000 train
images, the next 2 000 measure; results are appended to a file, one JSON object per line.

    python tools/bench_sections.py [--network NAME ...] [--table]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from bench_accuracy import ROOT, Bench, Case
from measurements import record, recorded
from trained import NETWORKS

from onnxprune.allocation import Bound
from onnxprune.arrays import Array
from onnxprune.choice import Chooser, allocate
from onnxprune.comparison import kl_divergence
from onnxprune.cost import cost_model
from onnxprune.errors import TargetError
from onnxprune.finishing import plan_of
from onnxprune.plan import Plan
from onnxprune.rewrite import apply, digest
from onnxprune.runtime import Session
from onnxprune.section_choice import dropped, drops, prior_of, with_constants
from onnxprune.section_search import find_sections
from onnxprune.sequential import refit_in_order
from onnxprune.study import Study

RESULTS = ROOT / "docs" / "results" / "sections.jsonl"
CASES = (
    Case("resnet20_cifar10", "lossless_train", "lossless_test", 1000),
    Case("resnet56_cifar10", "lossless_train", "lossless_test", 1000),
)
FRACTIONS = (0.5, 0.4, 0.3, 0.2)
MEASURED_IMAGES = 2000
KINDS = ("channels", "both", "sections")
Counts = Mapping[str, int]
Key = str | tuple[float, str]


class SectionBench:
    """A network with its sections, the damage of each, and images nothing was fitted on."""

    def __init__(self, case: Case) -> None:
        self.bench = bench = Bench(case)
        ranked = bench.rank("obs")
        found = find_sections(ranked.network, ranked.canonical).found
        self.known: Study = replace(ranked, sections=found)
        shape = {"input": (1, *bench.test.shape[1:])}
        self.cost = cost_model(ranked.network, ranked.canonical, shape, found)
        self.full = float(self.cost.macs(self.known.sizes))
        start = time.perf_counter()
        options = replace(bench.options, sections=True)
        self.chooser = Chooser(self.known, bench.fit, bench.tune, options, bench.executor)
        self.laws, self.drops = self.chooser.laws, self.chooser.drops
        self.trial_seconds = time.perf_counter() - start
        network = NETWORKS[case.model]
        images, _ = network.images("train", case.calibration_images + MEASURED_IMAGES)
        self.images = network.inputs(images[case.calibration_images :])
        self.reference = self.scores(bench.model)

    def bound(self, macs: float) -> Bound:
        """A target on the MACs."""
        return Bound("macs", self.cost.macs, macs * (1 + 1e-9), self.full)

    def choose(self, kind: str, macs: float) -> Counts:
        """The counts with least damage within so many MACs."""
        known, bounds = self.known, [self.bound(macs)]
        if kind == "sections":
            whole = {name: allowed[-1:] for name, allowed in known.allowed.items()}
            known = replace(known, allowed=whole)
        drops = {} if kind == "channels" else self.drops
        return allocate(known, bounds, "sensitivity", self.laws, drops=drops)

    def run(self, fraction: float) -> Counts:
        """What a run chooses for a share of the MACs, by trials of both kinds of plans."""
        return self.chooser.under([self.bound(fraction * self.full)]).counts

    def macs(self, counts: Counts) -> float:
        """The MACs of counts."""
        return float(self.cost.macs(self.known.counts(counts)))

    def predicted(self, counts: Counts) -> float:
        """The sum of the damages as the allocation sees it."""
        known = self.known
        total = sum(self.drops[s.name] for s in known.sections if not counts.get(s.name, 1))
        for group in known.groups:
            error = known.rankings[group.name].error[[counts.get(group.name, group.size)]]
            total += float(self.laws[group.name](error)[0])
        return total

    def finish(self, counts: Counts, *, in_order: bool = False) -> onnx.ModelProto:
        """The model of these counts, its consumers recovered at once or in order."""
        known, bench = self.known, self.bench
        prior = prior_of(known, counts, known.recovery)
        weights = prior.weights
        if in_order:
            samples = (bench.fit, bench.tune)
            (refitted,) = refit_in_order(known, [prior], known.recovery, *samples, bench.executor)
            weights = refitted.weights
        plan = plan_of(bench.model, known, counts)
        return apply(bench.model, plan, with_constants(weights, known, dropped(known, counts)))

    def scores(self, model: onnx.ModelProto) -> Array:
        """Class scores of the measuring images, shape (images, classes)."""
        session = Session(model)
        parts = range(0, len(self.images), 100)
        return np.concatenate([session.run({"input": self.images[i : i + 100]})[0] for i in parts])

    def divergence(self, model: onnx.ModelProto) -> float:
        """Mean divergence of the class scores from the original's."""
        return float(kl_divergence(self.reference, self.scores(model)).mean())

    def sections(self, done: Set[Key]) -> Iterator[dict[str, Any]]:
        """A row for every section that is not done."""
        narrowed: dict[float, float] = {}
        for section in (s for s in self.known.sections if s.name not in done):
            counts = {section.name: 0}
            macs = self.macs(counts)
            if macs not in narrowed:
                narrowed[macs] = self.divergence(self.finish(self.choose("channels", macs)))
            plain = Plan(digest(self.bench.model), drops(self.known, counts))
            yield {
                "section": section.name,
                "nodes": len(section.branch),
                "macs_saved": round(1 - macs / self.full, 4),
                "trial": round(self.drops[section.name], 4),
                "dropped": round(self.divergence(self.finish(counts)), 4),
                "dropped_without_constant": round(
                    self.divergence(apply(self.bench.model, plain)), 4
                ),
                "narrowed": round(narrowed[macs], 6),
            }

    def networks(self, done: Set[Key]) -> Iterator[dict[str, Any]]:
        """A row for every share of the MACs and kind of cut that is not done."""
        for kind in KINDS:
            for fraction in FRACTIONS:
                if (fraction, kind) in done:
                    continue
                start = time.perf_counter()
                try:
                    counts = self.choose(kind, fraction * self.full)
                except TargetError:
                    continue
                seconds = time.perf_counter() - start
                model = self.finish(counts, in_order=True)
                yield {
                    "macs_target": fraction,
                    "kind": kind,
                    "kept": kind == "both" and counts == self.run(fraction),
                    "macs": round(self.macs(counts) / self.full, 4),
                    "dropped": [s.name for s in self.known.sections if not counts.get(s.name, 1)],
                    "predicted": round(self.predicted(counts), 4),
                    "divergence": round(self.divergence(model), 4),
                    "accuracy": round(self.bench.accuracy(model), 2),
                    "seconds": round(seconds, 2),
                }


def row_key(row: dict[str, Any]) -> Key:
    """What tells the rows of a network apart."""
    return row.get("section") or (row["macs_target"], row["kind"])


def measure(case: Case) -> None:
    """Append the rows of one network that are not there yet."""
    done = {row_key(row) for row in recorded(RESULTS) if row["model"] == case.model}
    bench = SectionBench(case)
    print(f"trials took {bench.trial_seconds:.1f} s", flush=True)
    about = {"model": case.model, "base": round(bench.bench.base, 2), "test": case.reported}
    for row in itertools.chain(bench.sections(done), bench.networks(done)):
        record(RESULTS, about | row)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: two tables per network."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        lines += [
            f"### {model}.onnx",
            "",
            "| section | MACs saved | dropped | then refitted | narrowed for the same MACs |",
            "|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r['section']} | {r['macs_saved']:.1%} | {r['dropped']:.4f} "
            f"| {r['trial']:.4f} | {r['narrowed']:.5f} |"
            for r in own
            if "section" in r
        ]
        lines += [
            "",
            f"Accuracy on `{own[0]['test']}`, original {own[0]['base']:.2f} %.",
            "",
            "| MACs | cut | sections dropped | predicted damage | divergence | accuracy |",
            "|---:|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r['macs_target']:.0%} | {r['kind']}{', kept' * r['kept']} | {len(r['dropped'])} "
            f"| {r['predicted']:.4f} | {r['divergence']:.4f} | {r['accuracy']:.2f} |"
            for r in own
            if "kind" in r
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=[case.model for case in CASES])
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args()
    for case in CASES if not given.table else ():
        if given.network is None or case.model in given.network:
            measure(case)
    print(table(recorded(RESULTS)))


if __name__ == "__main__":
    main()
