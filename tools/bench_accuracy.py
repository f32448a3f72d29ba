"""Accuracy of pruned networks on images that nothing was chosen on.

Every criterion, with and without recovery, with uniform and measured allocation, at 75 % and 50 %
of the MACs. Calibration samples come from train splits, accuracy from test splits. Results are
appended to a file, one JSON object per line; a second run goes on where the first one stopped, and
``--table`` prints what is there.

    python tools/bench_accuracy.py [--network NAME ...] [--table]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measurements import record, recorded
from trained import NETWORKS, SHARED

from onnxprune.allocation import Bound
from onnxprune.arrays import Array
from onnxprune.batches import Batches
from onnxprune.bounds import bounds_of
from onnxprune.calibration import split
from onnxprune.canonical import canonicalise
from onnxprune.choice import Chooser, allocate
from onnxprune.cost import cost_model, parameter_count
from onnxprune.criteria import CRITERIA, Settings
from onnxprune.executor import InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.methods import RECOVERIES
from onnxprune.model import load
from onnxprune.options import Options
from onnxprune.plan import Keep, Plan
from onnxprune.refit import refit
from onnxprune.rewrite import apply, digest
from onnxprune.runtime import Session
from onnxprune.scope import Scope, prunable_groups
from onnxprune.study import QUICK_RECOVERY, Study, rank, study
from onnxprune.target import Target

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "models"
RESULTS = ROOT / "docs" / "results" / "accuracy.jsonl"

FRACTIONS = (0.75, 0.5)
COLUMNS = (
    "uniform, 75 % MACs",
    "uniform, 50 %",
    "measured, 75 %",
    "measured, 50 %",
    "its params",
)
DEFAULTS = Options(align=1, sequential=False, latency=False)


@dataclass(frozen=True)
class Case:
    """A network, what it is calibrated on, and what its accuracy is reported on."""

    model: str
    train: str
    test: str
    test_images: int
    calibration_images: int = 1000
    embedded: bool = False

    @property
    def calibration(self) -> str:
        """The calibration images in words."""
        return self.train if self.embedded else f"{self.train}[:{self.calibration_images}]"

    @property
    def reported(self) -> str:
        """The test images in words."""
        return self.test if self.embedded else f"{self.test}[:{self.test_images}]"


CASES = (
    Case("resnet20_cifar10", "lossless_train", "lossless_test", 1000),
    Case("resnet20_cifar10_jpeg", "jpeg_train", "jpeg_test", 5000),
    Case("vgg16_cifar10", "jpeg_train", "jpeg_test", 5000),
    Case("vit_digits", "digits_calib.npz", "digits_test.npz", 500, 500, embedded=True),
)


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=[case.model for case in CASES])
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args()
    if not given.table:
        chosen = [case for case in CASES if given.network is None or case.model in given.network]
        if not (SHARED.is_dir() or all(case.embedded for case in chosen)):
            sys.exit(f"{SHARED} is missing: it holds the networks and images of CIFAR-10")
        for case in chosen:
            measure(case)
    print(table(recorded(RESULTS)))


def measure(case: Case) -> None:
    """Append the rows of one network that are not there yet."""
    done = {row_key(row) for row in recorded(RESULTS)}
    bench: Bench | None = None
    for criterion in CRITERIA:
        rankings = None
        for recovery in ("least-squares", "none"):
            keys = [
                (case.model, criterion, recovery, allocation, fraction)
                for allocation in ("uniform", "sensitivity")
                for fraction in FRACTIONS
            ]
            if all(key in done for key in keys):
                continue
            bench = bench or Bench(case)
            rankings = rankings or bench.rank(criterion)
            for row in bench.rows(criterion, rankings, recovery):
                if row_key(row) not in done:
                    record(RESULTS, row)


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells rows apart."""
    return tuple(row[k] for k in ("model", "criterion", "recovery", "allocation", "macs_target"))


class Bench:
    """One network with its statistics, collected once for all criteria."""

    def __init__(self, case: Case, options: Options = DEFAULTS) -> None:
        self.case = case
        self.options = options
        self.executor = InProcess(progress=False)
        folder = EMBEDDED if case.embedded else SHARED / "models"
        self.model = load(folder / f"{case.model}.onnx")
        calibration_images, self.test, self.labels = images_of(case)
        samples = {"input": calibration_images}
        self.base = self.accuracy(self.model)
        calibration = open_samples(self.model, samples, self.options)
        parts = split(len(calibration), self.options.seed)
        canonical = canonicalise(self.model)
        network = find_groups(canonical)
        groups = prunable_groups(network, self.options)
        options = replace(self.options, criterion="random")
        scope = Scope.of(network, groups, options.composition.align)
        self.study = study(canonical, scope, calibration, parts, options, self.executor)
        self.cost = cost_model(network, canonical, {"input": (1, *self.test.shape[1:])})
        self.fit, self.tune = (
            Batches(calibration, indices, self.options.batch) for indices in (parts.fit, parts.tune)
        )

    def rank(self, criterion: str, seed: int | None = None) -> Study:
        """The study with this criterion's rankings."""
        given = Settings(self.options.seed if seed is None else seed, order="pivoted")
        made = CRITERIA[criterion](given)
        known = self.study
        rankings = rank(known.network, known.groups, known.layers, made)
        return replace(known, rankings=rankings)

    def rows(self, criterion: str, ranked: Study, recovery: str) -> Iterator[dict[str, Any]]:
        """The results of one criterion and recovery: both allocations at every fraction."""
        known = replace(
            ranked,
            recovery=RECOVERIES[recovery],
            trial_recovery=RECOVERIES["none"] if recovery == "none" else QUICK_RECOVERY,
        )
        options = replace(self.options, recovery=recovery != "none")
        laws = Chooser(known, self.fit, self.tune, options, self.executor).laws
        for allocation in ("uniform", "sensitivity"):
            for fraction in FRACTIONS:
                start = time.perf_counter()
                counts = allocate(known, self.bounds(known, fraction), allocation, laws)
                pruned = self.prune(known, counts)
                seconds = time.perf_counter() - start
                yield self.row(known, counts, pruned) | {
                    "model": self.case.model,
                    "criterion": criterion,
                    "recovery": recovery,
                    "allocation": allocation,
                    "macs_target": fraction,
                    "seconds": round(seconds, 1),
                }

    def accuracy(self, model: onnx.ModelProto) -> float:
        """Per cent of the test images whose highest score is of their class."""
        session = Session(model)
        batches = range(0, len(self.test), 100)
        scores = [session.run({"input": self.test[i : i + 100]})[0] for i in batches]
        return float(100 * np.mean(np.concatenate(scores).argmax(axis=1) == self.labels))

    def bounds(self, known: Study, fraction: float) -> list[Bound]:
        """The target of a fraction of the MACs."""
        params = parameter_count(self.model)
        target = [Target("macs", fraction)]
        return bounds_of(target, self.cost, known.sizes, known.channels, params)

    def prune(self, known: Study, counts: dict[str, int]) -> onnx.ModelProto:
        """The model cut to these counts, its consumers recovered."""
        keeps = known.keeps(counts)
        sizes = {group.name: group.size for group in known.groups}
        edits = [Keep(n, tuple(k.tolist()), sizes[n]) for n, k in keeps.items()]
        alive = known.survivors(keeps)
        weights = refit(
            known.views, known.layers, alive, known.recovery, known.contractions
        ).weights
        return apply(self.model, Plan(digest(self.model), tuple(edits)), weights)

    def row(self, known: Study, counts: dict[str, int], pruned: onnx.ModelProto) -> dict[str, Any]:
        """What is recorded of a pruned model."""
        kept = np.array([counts.get(g.name, g.size) for g in known.network.groups])
        return {
            "calibration": self.case.calibration,
            "test": self.case.reported,
            "base": round(self.base, 2),
            "accuracy": round(self.accuracy(pruned), 2),
            "macs": round(float(self.cost.macs(kept) / self.cost.macs(known.sizes)), 4),
            "params": round(parameter_count(pruned) / parameter_count(self.model), 4),
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one table per network, a row for each criterion and recovery."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        first = own[0]
        lines += [
            f"### {model}.onnx",
            "",
            _caption(first),
            "",
            "| criterion | recovery | " + " | ".join(COLUMNS) + " |",
            "|---|---|" + "---:|" * len(COLUMNS),
        ]
        for criterion, recovery in dict.fromkeys((r["criterion"], r["recovery"]) for r in own):
            cells = {
                (r["allocation"], r["macs_target"]): (f"{r['accuracy']:.2f}", f"{r['params']:.0%}")
                for r in own
                if (r["criterion"], r["recovery"]) == (criterion, recovery)
            }
            order = [(a, fraction) for a in ("uniform", "sensitivity") for fraction in FRACTIONS]
            shown = [cells.get(key, ("", "")) for key in order]
            values = [*(accuracy for accuracy, _ in shown), shown[-1][1]]
            lines.append(f"| {criterion} | {recovery} | {' | '.join(values)} |")
        lines.append("")
    return "\n".join(lines)


def _caption(row: dict[str, Any]) -> str:
    return (
        f"Calibration `{row['calibration']}`, accuracy on `{row['test']}`, "
        f"original {row['base']:.2f} %."
    )


def images_of(case: Case) -> tuple[Array, Array, Array]:
    """Calibration images, test images and their labels, as the network takes them."""
    if case.embedded:
        with np.load(EMBEDDED / case.train) as train, np.load(EMBEDDED / case.test) as test:
            return train["input"], test["input"], test["labels"]
    network = NETWORKS[case.model]
    train_images, _ = network.images("train", case.calibration_images)
    test_images, labels = network.images("test", case.test_images)
    return network.inputs(train_images), network.inputs(test_images), labels


if __name__ == "__main__":
    main()
